"""Filter-KD beside one-hot labels, smoothing, self-distillation and an early-stopped teacher."""

from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from pipeline.analyses.distillation import TARGETS, gaussian_mixture, noisy_labels, teach
from pipeline.analyses.learning_path import predicted, train_recording
from pipeline.analyses.width_networks import make_network
from pipeline.registry import BenchmarkOptions
from pipeline.report.plots import Panel, Plot, Series
from pipeline.studies.images import load_splits
from pipeline.studies.study import Findings, Study, StudyOptions, Work


class DistillationOptions(StudyOptions):
    """Students of several teachers, under label noise."""

    benchmark: BenchmarkOptions | None = None
    """Images and classes; null for Gaussian classes with known p*."""
    classes: int = Field(default=3, ge=2)
    """Gaussian classes."""
    dimensions: int = Field(default=30, ge=2)
    """Of the Gaussian inputs."""
    spread: float = Field(default=0.5, gt=0)
    """Standard deviation of each Gaussian class around its mean of length 1."""
    n: int = Field(default=500, ge=10)
    """Training samples."""
    test: int = Field(default=2_000, ge=10)
    """Test samples of Gaussian classes; a benchmark brings its own."""
    network: Literal["fully_connected", "convnet"] = "fully_connected"
    """Teacher and student alike."""
    width: int = Field(default=64, ge=1)
    """Of its layers."""
    epochs: int = Field(default=60, ge=1)
    """Of teacher and student each."""
    learning_rate: float = Field(default=0.02, gt=0)
    """SGD with momentum 0.9."""
    average: float = Field(default=0.05, gt=0, le=1)
    """Weight of the newest prediction in Filter-KD's moving average."""
    noise: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(
        default=(0.0, 0.2, 0.4), min_length=1
    )
    """Shares of labels that are wrong, in training and validation alike."""
    seeds: int = Field(default=3, ge=1)
    """Repetitions with other samples, noise, weights and orders."""


def run(options: DistillationOptions, work: Work) -> Findings:
    """Test accuracy, likelihood and, with known p*, distance of the targets, over the noise."""
    makers = {
        f"noise_{share}_{seed}": partial(_cell, options, share, seed)
        for share in options.noise
        for seed in range(options.seeds)
    }
    rows = [row for rows in work.cells(makers, axes=("noise", "seeds")).values() for row in rows]
    table = [
        _summary([row for row in rows if (row["target"], row["noise"]) == (target, share)])
        for share in options.noise
        for target in TARGETS
    ]
    return Findings(table, _plots(options, table, rows))


def _cell(options: DistillationOptions, share: float, seed: int) -> list[dict[str, Any]]:
    """One teacher and its students."""
    data = _data(options, seed)
    k = data["k"]
    labels = noisy_labels(data["labels"], k, share, seed)
    held_out = (data["x_val"], noisy_labels(data["labels_val"], k, share, seed + 1_000))
    one_hot = torch.nn.functional.one_hot(labels, k).float()
    training: dict[str, Any] = {
        "epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "seed": seed,
    }
    make = partial(make_network, options.network, data["x"].shape[1:], options.width, k)
    teacher = teach(make(seed), data["x"], one_hot, held_out, average=options.average, **training)
    rows = []
    for name, targets_of in TARGETS.items():
        targets = targets_of(one_hot, teacher)
        student, best = make(seed + 500), _Best(held_out)
        train_recording(
            student, data["x"], targets, after_epoch=partial(best.look, student), **training
        )
        at_end = _judged(student, targets, data)["accuracy"]
        student.load_state_dict(best.state)
        row = {"target": name, "noise": share, "at end": at_end}
        rows.append({**row, **_judged(student, targets, data)})
    return rows


class _Best:
    """A student's weights after the epoch that did best on validation, noisy as it is."""

    def __init__(self, validation: tuple[Tensor, Int[Tensor, " m"]]) -> None:
        self._x, self._labels = validation
        self._accuracy = -1.0
        self.state: dict[str, Tensor] = {}

    def look(self, student: torch.nn.Module, epoch: int) -> None:
        """Keep the weights if no epoch before did as well."""
        right = predicted(student, self._x).argmax(dim=1) == self._labels
        found = float(right.double().mean())
        if found > self._accuracy:
            self._accuracy = found
            self.state = {k: v.detach().clone() for k, v in student.state_dict().items()}


def _data(options: DistillationOptions, seed: int) -> dict[str, Any]:
    if options.benchmark is not None:
        splits = load_splits(options.benchmark, "train", "val", "id_test")
        images, held_out, test_images = (
            splits["train"].first(options.n, "n"),
            splits["val"],
            splits["id_test"],
        )
        return {
            "k": images.k, "x": images.x, "labels": images.labels, "truth": None,
            "x_val": held_out.x, "labels_val": held_out.labels,
            "x_test": test_images.x, "labels_test": test_images.labels, "truth_test": None,
        }  # fmt: skip
    k, d = options.classes, options.dimensions
    train, val, test = (
        gaussian_mixture(n, k, d, options.spread, seed=3 * seed + i)
        for i, n in enumerate((options.n, options.n // 2, options.test))
    )
    return {
        "k": k, "x": train.x, "labels": train.labels, "truth": train.truth,
        "x_val": val.x, "labels_val": val.labels,
        "x_test": test.x, "labels_test": test.labels, "truth_test": test.truth,
    }  # fmt: skip


def _judged(
    student: torch.nn.Module, targets: Float[Tensor, "n k"], data: dict[str, Any]
) -> dict[str, Any]:
    q = predicted(student, data["x_test"])
    labels: Int[Tensor, " m"] = data["labels_test"]
    chosen = q[torch.arange(len(q)), labels].clamp(min=1e-12)
    known = data["truth"] is not None
    return {
        "accuracy": float((q.argmax(dim=1) == labels).double().mean()),
        "nll": float(-chosen.log().mean()),
        "target distance": float((targets - data["truth"]).norm(dim=1).mean()) if known else None,
        "risk distance": float((q - data["truth_test"]).norm(dim=1).mean()) if known else None,
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    accuracies = [row["accuracy"] for row in rows]
    spread = np.std(accuracies, ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else 0.0

    def mean(key: str) -> float | None:
        values = [row[key] for row in rows if row[key] is not None]
        return float(np.mean(values)) if values else None

    return {
        "noise": rows[0]["noise"],
        "target": rows[0]["target"],
        "accuracy, %": 100 * float(np.mean(accuracies)),
        "stderr": 100 * float(spread),
        "last epoch, %": 100 * float(np.mean([row["at end"] for row in rows])),
        "nll": mean("nll"),
        "‖p_target − p*‖": mean("target distance"),
        "‖q − p*‖ on test": mean("risk distance"),
        "seeds": len(rows),
    }


def _plots(
    options: DistillationOptions, table: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> list[Plot]:
    series = []
    for target in TARGETS:
        own = [row for row in table if row["target"] == target]
        x, y = [row["noise"] for row in own], [row["accuracy, %"] for row in own]
        series.append(Series(target, x, y, [row["stderr"] for row in own]))
    panels = [Panel("share of wrong labels", "test accuracy, %", series)]
    if options.benchmark is None:
        points = [
            Series(
                target,
                [row["target distance"] for row in rows if row["target"] == target],
                [row["risk distance"] for row in rows if row["target"] == target],
                style="points",
            )
            for target in TARGETS
        ]
        panels.append(Panel("‖p_target − p*‖, training", "‖q − p*‖, test", points))
    caption = f"Students of one teacher each; n = {options.n}, {options.seeds} seeds, bars ± 1 s.e."
    return [Plot("distillation", "What a student is best trained on", caption, panels)]


STUDY = Study(DistillationOptions, run)
