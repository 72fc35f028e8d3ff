"""Networks of several depths beside their linearizations: accuracy, NLL, ECE."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import Field
from torch import nn

from pipeline.analyses.linearized_classes import METHODS, Split, linearized_rows
from pipeline.analyses.methods import refuse_unknown_methods
from pipeline.baselines.training import Recipe, train
from pipeline.models.head import with_head
from pipeline.registry import BenchmarkOptions, ModelOptions, build_backbone, build_network
from pipeline.report.plots import Panel, Plot, Series
from pipeline.sketch import make_sketch
from pipeline.studies.backbones import outputs_of
from pipeline.studies.images import Labelled, images_of, load_splits
from pipeline.studies.study import Findings, Positions, Study, StudyOptions, Work
from pipeline.types import InputError


class LinearizedNetworksOptions(StudyOptions):
    """Classifiers and their linearizations, network by network (Maddox et al. 2021, figure 4)."""

    benchmark: BenchmarkOptions
    """Images and classes."""
    models: dict[str, ModelOptions]
    """Networks by name, in the order of the figure. Each gets a new head and is trained here; one
    with weights and ``head: {kind: keep}`` is taken as it is."""
    epochs: int = Field(default=10, ge=1)
    """Of training on the whole train split, in batches of 128."""
    learning_rate: float = Field(default=0.1, gt=0)
    """At the first step; a cosine takes it to zero."""
    augmentation: bool = True
    """Random crops and flips."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of training's passes; the linearized models are float32."""
    rows: int = Field(default=500, ge=10)
    """Training images that the linearized models are fitted to."""
    test: int = Field(default=1_000, ge=10)
    """Images of id_test."""
    sketch_size: int = Field(default=2_000, ge=1)
    """Parameters that move in the linearized models."""
    methods: tuple[str, ...] = ("network", "linearized", "network_gp", "finite_ntk")
    """What is compared."""
    seeds: Positions = (0,)
    """Of networks, orders and draws."""


def run(options: LinearizedNetworksOptions, work: Work) -> Findings:
    """One row a network and method, means over seeds."""
    if not options.models:
        raise InputError("at least one network is needed.", "models")
    refuse_unknown_methods(options.methods, METHODS)  # before any network is trained
    data = load_splits(options.benchmark, "train", "val", "id_test")
    cells = {
        (name, seed): f"{name}_{seed}"
        for name, model in options.models.items()
        for seed in (options.seeds[:1] if _kept(model) else options.seeds)
    }
    makers = {cell: partial(_cell, options, data, *key) for key, cell in cells.items()}
    own = {cell: work.options["models"][name] for (name, _), cell in cells.items()}
    found = work.cells(makers, axes=("models", "seeds"), own=own)
    table: list[dict[str, Any]] = []
    for name in options.models:
        runs = [found[cell] for key, cell in cells.items() if key[0] == name]
        table += [{"network": name, **_summary(same)} for same in zip(*runs, strict=True)]
    return Findings(table, [_plot(options, table)], _notes(options))


def _kept(model: Any) -> bool:
    kept: bool = model.head.kind == "keep"
    return kept


def _cell(
    options: LinearizedNetworksOptions, data: dict[str, Labelled], name: str, seed: int
) -> list[dict[str, Any]]:
    if _kept(options.models[name]):
        module = build_network(options.models[name]).module.eval()
        _refuse_other_classes(name, module, data["id_test"])
    else:
        module = _trained(options, data, name, seed)
    size = min(options.sketch_size, sum(p.numel() for p in module.parameters()))
    sketch = make_sketch("uniform", module, size, seed)
    train_rows = data["train"].first(options.rows, "rows")
    test = data["id_test"].first(options.test, "test")
    splits = Split(train_rows.x, train_rows.labels), Split(test.x, test.labels)
    return linearized_rows(module, sketch, *splits, options.methods, seed=seed)


def _trained(
    options: LinearizedNetworksOptions, data: dict[str, Labelled], name: str, seed: int
) -> nn.Module:
    backbone = build_backbone(options.models[name].model_copy(update={"seed": seed}))
    module = with_head(backbone, "random", data["train"].k, seed).module
    recipe = Recipe(
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch_size=128,
        weight_decay=5e-4,
        augmentation="crop_flip" if options.augmentation else "none",
        precision=options.precision,
        seed=seed,
    )
    outcome = train(module, images_of(data["train"]), images_of(data["val"]), recipe)
    if outcome.best_state is None:
        raise InputError(f"{name} diverged at learning rate {options.learning_rate}.")
    module.load_state_dict(outcome.best_state)
    return module.eval()


def _refuse_other_classes(name: str, module: nn.Module, samples: Labelled) -> None:
    k = outputs_of(module, samples.x[:1]).shape[1]
    if k != samples.k:
        raise InputError(
            f"{name} keeps a head of {k} outputs, the benchmark has {samples.k} classes. Give it "
            "weights of these classes, or let it be trained: head: {kind: random}.",
            "models",
        )


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One method's row over seeds; with one seed the standard error is that of its test images."""
    accuracy = np.array([run["accuracy, %"] for run in runs])
    several = len(runs) > 1
    spread = float(accuracy.std(ddof=1)) / len(runs) ** 0.5 if several else runs[0]["stderr"]
    return {
        "method": runs[0]["method"],
        "accuracy, %": float(accuracy.mean()),
        "stderr": spread,
        "NLL": float(np.mean([run["NLL"] for run in runs])),
        "ECE": float(np.mean([run["ECE"] for run in runs])),
        "seeds": len(runs),
        "converged": all(run["converged"] for run in runs),
    }


def _notes(options: LinearizedNetworksOptions) -> list[str]:
    return [
        f"networks trained here see the whole train split, linearized models {options.rows} of "
        f"its images and at most {options.sketch_size:,} parameters"
    ]


def _plot(options: LinearizedNetworksOptions, table: list[dict[str, Any]]) -> Plot:
    names = list(options.models)
    panels = []
    for key in ("accuracy, %", "NLL", "ECE"):
        lines = []
        for method in options.methods:
            rows = [row for row in table if row["method"] == method]
            errors = [row["stderr"] for row in rows] if key == "accuracy, %" else None
            xs = [float(names.index(row["network"]) + 1) for row in rows]
            lines.append(Series(method, xs, [row[key] for row in rows], errors))
        panels.append(Panel("", key, lines, columns=names))
    caption = "Networks in the order of the config; bars are one standard error."
    return Plot("networks", "Networks and their linearizations", caption, panels)


STUDY = Study(LinearizedNetworksOptions, run)
