"""How alike the Jacobians of networks of different tasks are, pair of tasks by pair."""

from collections.abc import Mapping
from functools import cache, partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pipeline.analyses.similarity import (
    diagonal_fisher,
    kernel_alignment,
    parameter_cosine,
    task2vec_cosine,
)
from pipeline.analyses.streamed import StreamedFeatures
from pipeline.config import Options
from pipeline.models.lenet import LeNetOptions, build
from pipeline.report.plots import Panel, Plot, Series
from pipeline.studies.backbones import features_of
from pipeline.studies.study import Findings, Study, StudyOptions, Work
from pipeline.types import InputError

SIDE = 32
"""Pixels that LeNet takes."""


class TaskOptions(Options):
    """Images of one task."""

    path: Path
    """NumPy archive with train_images, uint8 (n, 28, 28), and train_labels."""
    half: int | None = Field(default=None, ge=0, le=1)
    """Even or odd rows only; null for all."""


class TaskSimilarityOptions(StudyOptions):
    """LeNets of several tasks, compared on the same images (Maddox et al. 2021, figure 5)."""

    tasks: dict[str, TaskOptions]
    """What networks are trained on, by name."""
    images: Path
    """Archive whose first rows every network is differentiated at."""
    networks: int = Field(default=5, ge=2)
    """Of every task."""
    shared_start: bool = False
    """Whether the i-th networks of all tasks start from the same weights."""
    epochs: int = Field(default=3, ge=1)
    """Of training, by Adam at 1e-3 in batches of 64."""
    rows: int = Field(default=500, ge=2)
    """Images that gradients are taken at."""
    sketch_size: int | None = Field(default=10_000, ge=1)
    """Parameters kept; null for 100,000 or all."""
    seed: int = 0
    """Of weights and orders."""


def run(options: TaskSimilarityOptions, work: Work) -> Findings:
    """One row a pair of tasks: means over pairs of networks, none with itself."""
    if len(options.tasks) < 2:
        raise InputError("two tasks or more can be compared.", "tasks")
    x = _scaled(_archive(options.images)["train_images"][: options.rows])

    @cache
    def features(task: str, number: int) -> StreamedFeatures:
        return features_of(_trained(options, task, number), x, options.sketch_size)

    pairs = list(combinations_with_replacement(options.tasks, 2))
    makers = {f"{a}_{b}": partial(_cell, options, features, a, b) for a, b in pairs}
    # The place of a task in the list is part of its networks' seeds.
    place = {name: [i, task] for i, (name, task) in enumerate(work.options["tasks"].items())}
    own = {f"{a}_{b}": [place[a], place[b]] for a, b in pairs}
    cells = work.cells(makers, axes=("tasks",), own=own)
    table = []
    for (a, b), found in zip(pairs, cells.values(), strict=True):
        row: dict[str, Any] = {"a": a, "b": b, "pairs": len(found["parameter cosine"])}
        for name, values in found.items():
            row[name] = float(np.mean(values))
            row[f"{name}, sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        table.append(row)
    return Findings(table, [_plot(pairs, list(cells.values()))])


def _cell(options: TaskSimilarityOptions, features: Any, a: str, b: str) -> dict[str, list[float]]:
    numbers = range(options.networks)
    pairs = [(i, j) for i in numbers for j in numbers if i < j or (a != b and i > j)]
    if a != b and options.shared_start:
        pairs = [(i, i) for i in numbers]
    found: dict[str, list[float]] = {"parameter cosine": [], "kernel alignment": [], "Task2Vec": []}
    for i, j in pairs:
        A, B = features(a, i), features(b, j)
        found["parameter cosine"].append(parameter_cosine(A, B).value)
        found["kernel alignment"].append(kernel_alignment(A, B).value)
        found["Task2Vec"].append(task2vec_cosine(diagonal_fisher(A), diagonal_fisher(B)))
    return found


def _trained(options: TaskSimilarityOptions, task: str, number: int) -> Any:
    place = 0 if options.shared_start else 1_000 * list(options.tasks).index(task)
    seed = options.seed + place + number
    network = build(LeNetOptions(seed=seed))
    chosen = options.tasks[task]
    archive = _archive(chosen.path)
    step = slice(None) if chosen.half is None else slice(chosen.half, None, 2)
    x = _scaled(archive["train_images"][step])
    y = torch.from_numpy(archive["train_labels"][step].astype(np.int64))
    _fit(network.module, x, y, options.epochs, seed)
    return network


def _fit(module: nn.Module, x: Tensor, y: Tensor, epochs: int, seed: int) -> None:
    adam = torch.optim.Adam(module.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            loss = functional.cross_entropy(module(x[rows]), y[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
    module.eval()


def _archive(path: Path) -> Mapping[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path} does not exist. Give an archive with train_images.", "tasks")
    with np.load(path) as archive:
        absent = [name for name in ("train_images", "train_labels") if name not in archive]
        if absent:
            raise InputError(f"{path} lacks {', '.join(absent)}.", "tasks")
        return {name: archive[name] for name in ("train_images", "train_labels")}


def _scaled(images: np.ndarray) -> Tensor:
    """(n, 1, 32, 32) in [0, 1], zeros around the image."""
    margin = (SIDE - images.shape[-1]) // 2
    x = torch.from_numpy(images.astype(np.float32))[:, None] / 255
    return functional.pad(x, (margin, margin, margin, margin))


def _plot(pairs: list[tuple[str, str]], cells: list[dict[str, list[float]]]) -> Plot:
    panels = []
    for name in ("parameter cosine", "kernel alignment"):
        series = [
            Series(f"{a}, {b}", [float(i + 1)] * len(cell[name]), cell[name], style="points")
            for i, ((a, b), cell) in enumerate(zip(pairs, cells, strict=True))
        ]
        panels.append(Panel("pair of tasks", name, series))
    caption = "A point is a pair of networks, both differentiated at the same images."
    return Plot("tasks", "How alike the tasks' networks are", caption, panels)


STUDY = Study(TaskSimilarityOptions, run)
