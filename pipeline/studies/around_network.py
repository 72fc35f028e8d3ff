"""Kernel regression around a network against training that network: the same loss, small steps."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.analyses.around import (
    AroundNetwork,
    fit_around,
    soft_targets,
    trained_outputs,
)
from pipeline.analyses.full_kernel import kernel_of
from pipeline.analyses.learning_path import train_recording
from pipeline.analyses.width_networks import Architecture, make_network
from pipeline.registry import BenchmarkOptions
from pipeline.report.plots import Panel, Plot, Series
from pipeline.solvers.nesterov import descent_iterates
from pipeline.solvers.operator import DenseKernel
from pipeline.studies.images import Labelled, load_splits
from pipeline.studies.study import Findings, Sizes, Study, StudyOptions, Work
from pipeline.types import InputError

Point = Literal["untrained", "pretrained", "fine_tuned"]


class AroundNetworkOptions(StudyOptions):
    """Regression around a network against training it."""

    benchmark: BenchmarkOptions
    """Where images and classes come from; `pretrained` needs its split `pretrain`."""
    network: Architecture = "fully_connected"
    """Architecture."""
    widths: Sizes = (32, 128)
    """Widths compared."""
    points: tuple[Point, ...] = Field(
        default=("untrained", "pretrained", "fine_tuned"), min_length=1
    )
    """Where the regression is around: fresh weights, other classes' weights with a new head, or
    weights trained on the training images."""
    targets: Literal["one_hot", "soft"] | Path = "one_hot"
    """Soft targets are 0.9 of the one-hot ones and 0.1 of even ones; or an .npy file of a class
    distribution (train, k) for each training image, in the split's order."""
    train: int = Field(default=60, ge=2)
    """Images that both learn from."""
    test: int = Field(default=100, ge=1)
    """Images that both predict."""
    steps: Sizes = (1, 3, 10, 30, 100, 300)
    """Full-batch steps of size `rate` / λ_max after which both are compared."""
    rate: float = Field(default=1.0, gt=0, le=1)
    """Step size in units of 1/λ_max of the full kernel."""
    warm_epochs: int = Field(default=5, ge=1)
    """Epochs of training before `pretrained` and `fine_tuned`."""
    seed: int = 0
    """Seed of weights and order."""


def run(options: AroundNetworkOptions, work: Work) -> Findings:
    """Relative differences of the outputs over steps, for every width and point."""
    names = ["train", "id_test"] + (["pretrain"] if "pretrained" in options.points else [])
    splits = load_splits(options.benchmark, *names)
    makers = {
        f"{point}_{width}": partial(_cell, options, splits, point, width)
        for point in options.points
        for width in options.widths
    }
    found = work.cells(makers, axes=("points", "widths"))
    table = [row for rows in found.values() for row in rows]
    return Findings(table, _plots(options, found))


def _cell(
    options: AroundNetworkOptions, splits: dict[str, Labelled], point: Point, width: int
) -> list[dict[str, Any]]:
    """One network: its kernels, the regressions after every number of steps, and the truth."""
    train = splits["train"].first(options.train, "train")
    test = splits["id_test"].first(options.test, "test")
    model = _starting_point(options, splits, point, width)
    Y = _targets(options, train)
    with torch.no_grad():
        f0, f0_test = model(train.x), model(test.x)
    full, cross = kernel_of(model, train.x), kernel_of(model, test.x, train.x)
    pseudo = kernel_of(model, train.x, output="random_direction")
    pseudo_cross = kernel_of(model, test.x, train.x, output="random_direction")
    step = options.rate / float(torch.linalg.eigvalsh(full)[-1])
    # The pseudo-NTK stands for Θ up to its scale, which sets the speed of the descent.
    scale = float(full.diagonal().mean() / pseudo.diagonal().mean())
    by_full = _descended(full, cross, Y, f0, f0_test, step, options.steps)
    by_pseudo = _descended(
        scale * pseudo, scale * pseudo_cross, Y, f0, f0_test, step, options.steps
    )
    real = trained_outputs(model, train.x, test.x, Y, step, options.steps)
    rows = []
    for steps, f, of_full, of_pseudo in zip(options.steps, real, by_full, by_pseudo, strict=True):
        moved = float((f - f0_test).norm())
        rows.append(
            {
                "point": point,
                "width": width,
                "steps": steps,
                "full against network": float((of_full - f).norm()) / moved,
                "pseudo against network": float((of_pseudo - f).norm()) / moved,
                "accuracy network": _accuracy(f, test),
                "accuracy full": _accuracy(of_full, test),
                "accuracy pseudo": _accuracy(of_pseudo, test),
            }
        )
    solved = fit_around(full, Y, f0, ridge=1e-6 * float(full.diagonal().mean()))
    at_end = _accuracy(solved.predict(cross, f0_test), test)
    return [{**row, "accuracy full, solved": at_end} for row in rows]


def _starting_point(
    options: AroundNetworkOptions, splits: dict[str, Labelled], point: Point, width: int
) -> nn.Module:
    train = splits["train"].first(options.train, "train")
    source = splits["pretrain"] if point == "pretrained" else train
    model = make_network(options.network, source.x.shape[1:], width, source.k, options.seed)
    if point == "untrained":
        return model
    train_recording(
        model.train(), source.x, source.one_hot(), epochs=options.warm_epochs, learning_rate=0.02,
        seed=options.seed,
    )  # fmt: skip
    if point == "pretrained":
        fresh = make_network(options.network, train.x.shape[1:], width, train.k, options.seed + 1)
        model.fc = fresh.fc
    return model.eval()


def _targets(options: AroundNetworkOptions, train: Labelled) -> Tensor:
    one_hot = train.one_hot().double()
    if options.targets == "one_hot":
        return one_hot
    if options.targets == "soft":
        return soft_targets(0.9 * one_hot + 0.1 / train.k)
    return soft_targets(_read_targets(options.targets, one_hot.shape))


def _read_targets(path: Path, shape: torch.Size) -> Tensor:
    if not path.is_file():
        raise InputError(
            f"no targets at {path}: expected one_hot, soft or an .npy file.", "targets"
        )
    try:
        values = np.load(path)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no .npy file of numbers: {error}.", "targets") from None
    if values.shape != tuple(shape) or values.dtype.kind != "f":
        raise InputError(
            f"{path} holds {values.dtype} {values.shape}, expected floats {tuple(shape)}.",
            "targets",
        )
    return torch.from_numpy(values)


def _descended(
    K: Tensor,
    cross: Tensor,
    Y: Tensor,
    f0: Tensor,
    f0_test: Tensor,
    step: float,
    wanted: tuple[int, ...],
) -> list[Tensor]:
    """The regression's outputs after some steps of gradient descent of this size."""
    residual = (Y - f0).reshape(len(K), -1)
    iterates = descent_iterates(DenseKernel(K), residual, 0.0, 1 / step, wanted)
    return [AroundNetwork(alpha).predict(cross, f0_test) for _, alpha in iterates]


def _accuracy(scores: Tensor, samples: Labelled) -> float:
    return float((scores.argmax(dim=1) == samples.labels).double().mean())


def _plots(options: AroundNetworkOptions, found: dict[str, Any]) -> list[Plot]:
    panels = []
    for point in options.points:
        series = []
        for width in options.widths:
            rows = found[f"{point}_{width}"]
            x = [float(row["steps"]) for row in rows]
            for kind in ("full", "pseudo"):
                y = [row[f"{kind} against network"] for row in rows]
                series.append(Series(f"{kind}, width {width}", x, y))
        title = point.replace("_", " ")
        label = "relative difference"
        panels.append(Panel("steps", label, series, xlog=True, ylog=True, title=title))
    caption = "‖f_kernel − f_net‖ / ‖f_net − f₀‖ on test images, after as many steps of both."
    return [Plot("around_network", "Regression against training", caption, panels)]


STUDY = Study(AroundNetworkOptions, run)
