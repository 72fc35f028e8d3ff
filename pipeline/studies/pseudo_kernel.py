"""How well the pseudo-NTK stands for the full eNTK: over networks, widths and training."""

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.analyses.around import fit_around, matched_ridge
from pipeline.analyses.full_kernel import (
    compare_kernels,
    drift,
    hanson_wright_bound,
    kernel_of,
)
from pipeline.analyses.learning_path import train_recording
from pipeline.analyses.width_networks import Architecture, backbone_of, make_network
from pipeline.jacobian.outputs import sum_norms
from pipeline.registry import BenchmarkOptions
from pipeline.studies.images import Labelled, load_splits
from pipeline.studies.pseudo_kernel_summary import Summary
from pipeline.studies.study import Findings, Sizes, Study, StudyOptions, Times, Work

Kind = Literal["first", "sum", "random_direction"]
Network = tuple[str, int, int]
"""Architecture, width and seed."""
OUTPUTS: dict[str, Any] = {"first": 0, "sum": "sum", "random_direction": "random_direction"}


class PseudoKernelOptions(StudyOptions):
    """Pseudo-NTK against full eNTK."""

    benchmark: BenchmarkOptions
    """Where images and classes come from."""
    networks: tuple[Architecture, ...] = Field(default=get_args(Architecture), min_length=1)
    """Which architectures."""
    widths: dict[Architecture, Sizes]
    """Widths of each."""
    epochs: Times = (0, 1, 2, 5, 10)
    """When kernels are compared; training stops at the last."""
    kinds: tuple[Kind, ...] = Field(default=("first", "sum", "random_direction"), min_length=1)
    """Scalars that the pseudo-NTK is taken of."""
    train: int = Field(default=1_000, ge=2)
    """Images trained on."""
    rows: int = Field(default=48, ge=2)
    """Images of the kernels, the first of those trained on."""
    test: int = Field(default=48, ge=1)
    """Images that the regressions predict."""
    ridge: float = Field(default=1e-3, gt=0)
    """Of the regressions, relative to the mean of the pseudo-NTK's diagonal."""
    learning_rate: float = Field(default=0.01, gt=0)
    """SGD with momentum 0.9 on cross-entropy."""
    seeds: int = Field(default=3, ge=1)
    """Networks of each width."""

    @model_validator(mode="after")
    def _every_network_has_widths(self) -> Self:
        missing = sorted(set(self.networks) - set(self.widths))
        if missing:
            raise ValueError(f"widths of {', '.join(missing)} are missing")
        return self


def run(options: PseudoKernelOptions, work: Work) -> Findings:
    """Errors over widths, epochs and kinds, with the fitted exponents."""
    splits = load_splits(options.benchmark, "train", "id_test")
    train = splits["train"].first(options.train, "train")
    test = splits["id_test"].first(options.test, "test")
    case = _Case(options, train, test)
    makers = {
        f"{name}_{width}_{seed}_{epoch}": partial(case.rows, (name, width, seed), epoch)
        for name in options.networks
        for width in options.widths[name]
        for seed in range(options.seeds)
        for epoch in options.epochs
    }
    found = work.cells(makers, axes=("networks", "widths", "seeds", "epochs"))
    rows = [row for rows in found.values() for row in rows]
    summary = Summary(rows, options.networks, options.widths, options.epochs, options.kinds)
    caption = (
        f"Pseudo-NTK of the {options.kinds[0]} logit on {options.rows} images; bars over seeds."
    )
    laws = summary.exponents()
    notes = [
        f"{name}: error falls with width to the power {law.exponent:.2f} ± {law.stderr:.2f}"
        for name, law in laws.items()
    ]
    numbers = {name: law.exponent for name, law in laws.items()} | summary.gains()
    return Findings(summary.table(), summary.plots(caption), [*notes, summary.bound()], numbers)


class _Case:
    """Images, and the networks trained on them."""

    def __init__(self, options: PseudoKernelOptions, train: Labelled, test: Labelled) -> None:
        self.options, self.train, self.test = options, train, test
        self._start: tuple[Network, Tensor] | None = None

    def rows(self, which: Network, epoch: int) -> list[dict[str, Any]]:
        """A row for every kind of pseudo-NTK, after so many epochs."""
        known = self.train.first(self.options.rows, "rows")
        full, found = _compared(self.options, self._network(which, epoch), known, self.test)
        if epoch == 0:
            self._start = which, full
        at = dict(zip(("network", "width", "seed"), which, strict=True))
        moved = drift(self._start_kernel(which), full)
        return [{**at, "epoch": epoch, "drift": moved, **row} for row in found]

    def _network(self, which: Network, epochs: int) -> nn.Module:
        """The network as it was then: training is short beside the kernels."""
        name, width, seed = which
        model = make_network(name, self.train.x.shape[1:], width, self.train.k, seed)
        if epochs:
            model.train()
            train_recording(
                model, self.train.x, self.train.one_hot(), epochs=epochs, seed=seed,
                learning_rate=self.options.learning_rate,
            )  # fmt: skip
        return model.eval()

    def _start_kernel(self, which: Network) -> Tensor:
        """The full kernel before training, kept for one network at a time."""
        if self._start is None or self._start[0] != which:
            x = self.train.first(self.options.rows, "rows").x
            self._start = which, kernel_of(self._network(which, 0), x)
        return self._start[1]


def _compared(
    options: PseudoKernelOptions, model: nn.Module, train: Labelled, test: Labelled
) -> tuple[Tensor, list[dict[str, Any]]]:
    """The full kernel, and one row of figures for each kind of pseudo-NTK."""
    with torch.no_grad():
        f0, f0_test = model(train.x), model(test.x)
    full_seconds, full = _timed(lambda: kernel_of(model, train.x))
    cross = kernel_of(model, test.x, train.x)
    Y = train.one_hot().double()
    total, mean = sum_norms(model.fc)  # type: ignore[arg-type]
    shared = {
        "full_seconds": full_seconds,
        "full_bytes": full.nbytes,
        "sum_norm": total,
        "mean_norm": mean,
        "bound": _bound(model, train),
    }
    rows = []
    for kind in options.kinds:
        output = OUTPUTS[kind]
        seconds, pseudo = _timed(partial(kernel_of, model, train.x, output=output))
        ridge = options.ridge * float(pseudo.diagonal().mean())
        by_pseudo = fit_around(pseudo, Y, f0, ridge=ridge).predict(
            kernel_of(model, test.x, train.x, output=output), f0_test
        )
        by_full = {
            "raw": fit_around(full, Y, f0, ridge=ridge).predict(cross, f0_test),
            "matched": fit_around(full, Y, f0, ridge=matched_ridge(ridge, full, pseudo)).predict(
                cross, f0_test
            ),
        }
        rows.append(
            {
                "kind": kind,
                **_plain(shared),
                "seconds": seconds,
                "bytes": pseudo.nbytes,
                **_plain(asdict(compare_kernels(full, pseudo))),
                "accuracy_pseudo": _accuracy(by_pseudo, test),
                "accuracy_network": _accuracy(f0_test, test),
                **{f"accuracy_full_{r}": _accuracy(f, test) for r, f in by_full.items()},
                **{
                    f"regression_difference_{r}": float((f - by_pseudo).norm() / f.norm())
                    for r, f in by_full.items()
                },
            }
        )
    return full, rows


def _bound(model: nn.Module, train: Labelled) -> float:
    """The talk's bound for the first pair of samples."""
    between = kernel_of(backbone_of(model), train.x[:1], train.x[1:2])
    return hanson_wright_bound(between, train.k)


def _timed(make: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.perf_counter()
    result = make()
    return time.perf_counter() - started, result


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Pairs (full, pseudo) as two entries; what is infinite as None."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, tuple):
            flat[f"{name}_full"], flat[f"{name}_pseudo"] = value
        else:
            flat[name] = value
    return {name: value if np.isfinite(value) else None for name, value in flat.items()}


def _accuracy(scores: Tensor, samples: Labelled) -> float:
    return float((scores.argmax(dim=1) == samples.labels).double().mean())


STUDY = Study(PseudoKernelOptions, run)
