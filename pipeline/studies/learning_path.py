"""First-order steps against real ones over step sizes, and whole paths on the simplex."""

import math
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from pipeline.analyses.distillation import Mixture, gaussian_mixture
from pipeline.analyses.learning_path import predicted, step_study, train_recording, zigzag
from pipeline.analyses.width_networks import make_network, smooth
from pipeline.report.plots import Panel, Plot, Series
from pipeline.studies.study import Findings, Study, StudyOptions, Times, Work

CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.5, math.sqrt(3) / 2))
"""Of the triangle that three class probabilities live in."""

Loss = Literal["squared", "cross_entropy"]


def _a_range(steps: tuple[float, float]) -> tuple[float, float]:
    if not 0 < steps[0] < steps[1]:
        raise ValueError("a range of step sizes goes from a small one above 0 to a larger one")
    return steps


class LearningPathOptions(StudyOptions):
    """Learning paths of a small network on Gaussian classes with known p*."""

    n: int = Field(default=500, ge=10)
    """Training samples."""
    spread: float = Field(default=0.5, gt=0)
    """Standard deviation of each class around its mean of length 1."""
    dimensions: int = Field(default=30, ge=2)
    """Of the inputs."""
    width: int = Field(default=64, ge=1)
    """Of the three hidden layers."""
    epochs: int = Field(default=100, ge=1)
    """Passes over the samples."""
    learning_rate: float = Field(default=0.02, gt=0)
    """SGD with momentum 0.9."""
    after: Times = (0, 10)
    """Epochs after which single steps are studied."""
    step_range: Annotated[tuple[float, float], AfterValidator(_a_range)] = (1e-7, 1e-4)
    """Smallest and largest step."""
    smooth: bool = True
    """Single steps are those of a network with GELU: the kinks of ReLU, which long steps cross,
    have no order."""
    watched: int = Field(default=20, ge=1)
    """Samples on which the change by one step is measured."""
    shown: int = Field(default=3, ge=1)
    """Easy and hard samples whose paths are drawn, of each."""
    seed: int = 0
    """Of data, weights and order."""


def run(options: LearningPathOptions, work: Work) -> Findings:
    """Orders of the remainder, and the paths of easy and hard samples."""
    makers: dict[str, Any] = {
        f"step_{epochs}_{loss}": partial(_steps, options, epochs, loss)
        for epochs in options.after
        for loss in ("squared", "cross_entropy")
    }
    found = work.cells({**makers, "paths": partial(_paths, options)}, axes=("after",))
    table = [found[name] for name in makers]
    paths = found["paths"]
    note = (
        f"{paths['hard']} of {options.n} samples have a label that is not their likeliest class; "
        f"they turn back by {paths['hard_turn']:.3f} on average, the others by "
        f"{paths['easy_turn']:.3f}"
    )
    numbers = {name: float(paths[name]) for name in ("hard", "hard_turn", "easy_turn")}
    plots = [_steps_plot(table), _paths_plot(paths)]
    return Findings([_row(row) for row in table], plots, [note], numbers)


def _data(options: LearningPathOptions) -> tuple[Mixture, Tensor]:
    data = gaussian_mixture(options.n, 3, options.dimensions, options.spread, seed=options.seed)
    return data, torch.nn.functional.one_hot(data.labels, 3).float()


def _steps(options: LearningPathOptions, epochs: int, loss: Loss) -> dict[str, Any]:
    data, one_hot = _data(options)
    model = make_network("fully_connected", data.x.shape[1:], options.width, 3, options.seed)
    if options.smooth:
        smooth(model)
    if epochs:
        train_recording(
            model, data.x, one_hot, epochs=epochs, learning_rate=options.learning_rate,
            seed=options.seed,
        )  # fmt: skip
    # The sample that is worst off makes the longest step. Float64: at small steps the remainder
    # lies under float32's rounding.
    worst = (one_hot - predicted(model, data.x)).norm(dim=1).argmax()[None]
    study = step_study(
        model.double(), data.x[: options.watched].double(), data.x[worst].double(),
        one_hot[worst].double(), np.geomspace(*options.step_range, 10).tolist(), loss,
    )  # fmt: skip
    return {
        "after epochs": epochs,
        "loss": loss,
        "step_sizes": study.step_sizes,
        "output_errors": study.output_errors,
        "probability_errors": study.probability_errors,
        "order": study.output_order.exponent,
        "order of probabilities": study.probability_order.exponent,
    }


def _paths(options: LearningPathOptions) -> dict[str, Any]:
    data, one_hot = _data(options)
    model = make_network("fully_connected", data.x.shape[1:], options.width, 3, options.seed)
    path = train_recording(
        model, data.x, one_hot, epochs=options.epochs, learning_rate=options.learning_rate,
        seed=options.seed,
    )  # fmt: skip
    turns = zigzag(path.probabilities, data.truth, one_hot)
    misled = data.truth.argmax(dim=1) != data.labels
    hard = (turns * misled).argsort(descending=True)[: options.shown]
    easy = torch.nonzero(~misled)[: options.shown, 0]
    return {
        "hard": int(misled.sum()),
        "hard_turn": float(turns[misled].mean()) if bool(misled.any()) else 0.0,
        "easy_turn": float(turns[~misled].mean()),
        "shown": [
            {
                "label": f"{kind} {number + 1}",
                "path": _on_triangle(path.probabilities[:, int(sample)]),
                "truth": _on_triangle(data.truth[int(sample)][None]),
            }
            for kind, samples in (("hard", hard), ("easy", easy))
            for number, sample in enumerate(samples)
        ],
    }


def _on_triangle(q: Tensor) -> dict[str, list[float]]:
    """Class probabilities as points in the plane."""
    places = q.double() @ torch.tensor(CORNERS, dtype=torch.float64)
    return {"x": places[:, 0].tolist(), "y": places[:, 1].tolist()}


def _row(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if not isinstance(value, list)}


def _steps_plot(table: list[dict[str, Any]]) -> Plot:
    series = [
        Series(
            f"{row['loss'].replace('_', '-')}, epoch {row['after epochs']}",
            row["step_sizes"],
            row["output_errors"],
        )
        for row in table
    ]
    caption = (
        "What the eNTK's prediction of one SGD step misses; slope 2 is first order done right."
    )
    panel = Panel("step size η", "‖real − predicted‖", series, xlog=True, ylog=True)
    return Plot("steps", "One step: prediction against truth", caption, [panel])


def _paths_plot(found: dict[str, Any]) -> Plot:
    panels = []
    for kind in ("hard", "easy"):
        chosen = [sample for sample in found["shown"] if sample["label"].startswith(kind)]
        series = [
            Series(f"sample {i + 1}", **sample["path"], style="path")
            for i, sample in enumerate(chosen)
        ]
        truths = [
            Series(
                "true p*",
                [s["truth"]["x"][0] for s in chosen],
                [s["truth"]["y"][0] for s in chosen],
                style="points",
            )
        ]
        title = "label misleads" if kind == "hard" else "label is the likeliest class"
        panels.append(Panel("", "", [*series, *truths], title=title, frame=list(CORNERS)))
    caption = (
        "Predictions of samples during training, from the open circle to the marker; corners are "
        "certainty of a class."
    )
    return Plot("paths", "Learning paths on the simplex", caption, panels)


STUDY = Study(LearningPathOptions, run)
