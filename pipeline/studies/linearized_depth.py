"""From an encoder trained without labels to classes, over how many of its layers are linearized."""

import copy
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from pipeline.analyses.label_free import Projected, Reconstruction, trained_encoder
from pipeline.analyses.linearized_classes import Split, linearized_rows
from pipeline.baselines.linear_probe import logistic_path
from pipeline.registry import BenchmarkOptions
from pipeline.report.plots import Panel, Plot, Series
from pipeline.sketch import make_sketch
from pipeline.studies.backbones import outputs_of
from pipeline.studies.images import Labelled, load_splits
from pipeline.studies.study import Findings, Study, StudyOptions, Work

LAYERS = 4
"""Of the encoder: three convolutions and the code."""

Layers = Annotated[tuple[Annotated[int, Field(ge=1, le=LAYERS)], ...], Field(min_length=1)]
"""How many of the encoder's layers, from the top."""


class LinearizedDepthOptions(StudyOptions):
    """Unsupervised to supervised transfer (Maddox et al. 2021, table 1)."""

    benchmark: BenchmarkOptions
    """Images; their labels are seen by the rows below only."""
    encoder_rows: int = Field(default=5_000, ge=10)
    """Images that the encoder reconstructs."""
    encoder_epochs: int = Field(default=10, ge=1)
    """Passes over them."""
    code: int = Field(default=64, ge=1)
    """Width of its code."""
    rows: int = Field(default=500, ge=10)
    """Labelled images."""
    test: int = Field(default=1_000, ge=10)
    """Images of id_test."""
    layers: Layers = (1, 2, 3, LAYERS)
    """Layers from the top that move: in the linearized models and in fine-tuning."""
    sketch_size: int = Field(default=2_000, ge=1)
    """Parameters that the linearized models keep of them, at most."""
    tune_epochs: int = Field(default=60, ge=1)
    """Of fine-tuning, by Adam at 1e-3 in batches of 64."""
    seed: int = 0
    """Of networks, orders and draws."""


def run(options: LinearizedDepthOptions, work: Work) -> Findings:
    """One row a method and number of layers, and one for the code alone."""
    data = load_splits(options.benchmark, "train", "id_test")
    known: list[Reconstruction] = []

    def encoder() -> Reconstruction:
        if not known:
            x = data["train"].part(0, options.encoder_rows).x
            made = trained_encoder(x, options.code, options.encoder_epochs, options.seed)
            known.append(made)
        return known[0]

    train = data["train"].first(options.rows, "rows")
    test = data["id_test"].first(options.test, "test")
    makers: dict[str, Any] = {"code": lambda: _probe(encoder(), train, test)}
    for count in options.layers:
        makers[f"top_{count}"] = partial(_cell, options, encoder, train, test, count)
    found = work.cells(makers, axes=("layers",))
    table = [row for rows in found.values() for row in rows]
    return Findings(table, [_plot(table)])


def _probe(made: Reconstruction, train: Labelled, test: Labelled) -> list[dict[str, Any]]:
    z, z_test = (outputs_of(made.encoder, part.x).numpy() for part in (train, test))
    models, _ = logistic_path(z, train.labels.numpy(), [1e-2, 1e-1, 1.0, 10.0], 500)
    accuracy = 100 * models[-1].merit(z_test, test.labels.numpy())
    return [_row("activations", 0, accuracy, None, None)]


def _cell(
    options: LinearizedDepthOptions, encoder: Any, train: Labelled, test: Labelled, count: int
) -> list[dict[str, Any]]:
    module = Projected(encoder().encoder, train.k, options.seed)
    chosen = _top(module, count)
    size = min(options.sketch_size, sum(p.numel() for p in chosen))
    sketch = make_sketch("layers", module, size, options.seed, last=count)
    splits = Split(train.x, train.labels), Split(test.x, test.labels)
    methods = ("finite_ntk", "variational")
    rows = linearized_rows(module, sketch, *splits, methods, seed=options.seed)
    found = [_row(r["method"], count, r["accuracy, %"], r["NLL"], r["ECE"]) for r in rows]
    return [*found, _row("fine-tuning", count, _tuned(options, module, train, test, count))]


def _row(
    method: str, layers: int, accuracy: float, nll: float | None = None, ece: float | None = None
) -> dict[str, Any]:
    return {"method": method, "top layers": layers, "accuracy, %": accuracy, "NLL": nll, "ECE": ece}


def _top(module: nn.Module, count: int) -> list[nn.Parameter]:
    layers = [m for m in module.modules() if list(m.parameters(recurse=False))]
    return [p for layer in layers[-count:] for p in layer.parameters()]


def _tuned(
    options: LinearizedDepthOptions, module: nn.Module, train: Labelled, test: Labelled, count: int
) -> float:
    """Accuracy after training the top layers through the fixed projection."""
    tuned = copy.deepcopy(module)
    adam = torch.optim.Adam(_top(tuned, count), lr=1e-3)
    generator = torch.Generator().manual_seed(options.seed)
    for _ in range(options.tune_epochs):
        for rows in torch.randperm(len(train), generator=generator).split(64):
            loss = nn.functional.cross_entropy(tuned(train.x[rows]), train.labels[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
    found = outputs_of(tuned.eval(), test.x).argmax(dim=1)
    return 100 * float((found == test.labels).double().mean())


def _plot(table: list[dict[str, Any]]) -> Plot:
    counts = sorted({row["top layers"] for row in table})
    lines = []
    for method in dict.fromkeys(row["method"] for row in table):
        rows = [row for row in table if row["method"] == method]
        xs = [float(counts.index(row["top layers"]) + 1) for row in rows]
        lines.append(Series(method, xs, [row["accuracy, %"] for row in rows]))
    columns = [str(count) for count in counts]
    panel = Panel("layers from the top that move", "accuracy, %", lines, columns=columns)
    caption = "Zero layers: logistic regression on the code."
    return Plot("depth", "Classes from an encoder trained without labels", caption, [panel])


STUDY = Study(LinearizedDepthOptions, run)
