"""Networks of several depths beside their linearizations: accuracy, NLL, ECE."""

from functools import partial
from typing import Any

from pydantic import Field

from pipeline.analyses.linearized_classes import Split, linearized_rows
from pipeline.baselines.training import Recipe, train
from pipeline.models.head import with_head
from pipeline.registry import BenchmarkOptions, ModelOptions, build_backbone
from pipeline.report.plots import Panel, Plot, Series
from pipeline.sketch import make_sketch
from pipeline.studies.images import Labelled, images_of, load_splits
from pipeline.studies.study import Findings, Study, StudyOptions, Work
from pipeline.types import InputError


class LinearizedNetworksOptions(StudyOptions):
    """Classifiers and their linearizations, network by network (Maddox et al. 2021, figure 4)."""

    benchmark: BenchmarkOptions
    """Images and classes."""
    models: dict[str, ModelOptions]
    """Networks by name, in the order of the figure; each gets a new head and is trained here."""
    epochs: int = Field(default=10, ge=1)
    """Of training on the whole train split, in batches of 128."""
    learning_rate: float = Field(default=0.1, gt=0)
    """At the first step; a cosine takes it to zero."""
    augmentation: bool = True
    """Random crops and flips."""
    rows: int = Field(default=500, ge=10)
    """Training images that the linearized models are fitted to."""
    test: int = Field(default=1_000, ge=10)
    """Images of id_test."""
    sketch_size: int = Field(default=2_000, ge=1)
    """Parameters that move in the linearized models."""
    methods: tuple[str, ...] = ("network", "linearized", "network_gp", "finite_ntk")
    """What is compared."""
    seed: int = 0
    """Of networks, orders and draws."""


def run(options: LinearizedNetworksOptions, work: Work) -> Findings:
    """One row a network and method."""
    if not options.models:
        raise InputError("at least one network is needed.", "models")
    data = load_splits(options.benchmark, "train", "val", "id_test")
    found = work.cells({name: partial(_cell, options, data, name) for name in options.models})
    table = [{"network": name, **row} for name, rows in found.items() for row in rows]
    return Findings(table, [_plot(options, table)], _notes(options))


def _cell(
    options: LinearizedNetworksOptions, data: dict[str, Labelled], name: str
) -> list[dict[str, Any]]:
    backbone = build_backbone(options.models[name])
    module = with_head(backbone, "random", data["train"].k, options.seed).module
    recipe = Recipe(
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch_size=128,
        weight_decay=5e-4,
        augmentation="crop_flip" if options.augmentation else "none",
        seed=options.seed,
    )
    outcome = train(module, images_of(data["train"]), images_of(data["val"]), recipe)
    if outcome.best_state is None:
        raise InputError(f"{name} diverged at learning rate {options.learning_rate}.")
    module.load_state_dict(outcome.best_state)
    module.eval()
    size = min(options.sketch_size, sum(p.numel() for p in module.parameters()))
    sketch = make_sketch("uniform", module, size, options.seed)
    train_rows, test = data["train"].first(options.rows), data["id_test"].first(options.test)
    splits = Split(train_rows.x, train_rows.labels), Split(test.x, test.labels)
    return linearized_rows(module, sketch, *splits, options.methods, seed=options.seed)


def _notes(options: LinearizedNetworksOptions) -> list[str]:
    return [
        f"networks are trained on the whole train split, linearized models on {options.rows} of "
        f"its images and {options.sketch_size:,} parameters"
    ]


def _plot(options: LinearizedNetworksOptions, table: list[dict[str, Any]]) -> Plot:
    names = list(options.models)
    panels = []
    for key in ("accuracy, %", "NLL"):
        lines = []
        for method in options.methods:
            rows = [row for row in table if row["method"] == method]
            errors = [row["stderr"] for row in rows] if key == "accuracy, %" else None
            xs = [float(names.index(row["network"]) + 1) for row in rows]
            lines.append(Series(method, xs, [row[key] for row in rows], errors))
        panels.append(Panel("network", key, lines))
    listed = "; ".join(f"{i + 1}: {name}" for i, name in enumerate(names))
    return Plot("networks", "Networks and their linearizations", f"Networks {listed}.", panels)


STUDY = Study(LinearizedNetworksOptions, run)
