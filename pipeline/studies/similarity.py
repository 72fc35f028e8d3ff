"""How alike networks are: parameter cosine, kernel alignment and Task2Vec, pair by pair."""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

from pydantic import Field

from pipeline.analyses.similarity import (
    diagonal_fisher,
    kernel_alignment,
    parameter_cosine,
    task2vec_cosine,
)
from pipeline.analyses.streamed import StreamedFeatures
from pipeline.registry import BenchmarkOptions, ModelOptions, build_network
from pipeline.report.plots import Panel, Plot, Series
from pipeline.studies.backbones import features_of
from pipeline.studies.images import load_splits
from pipeline.studies.study import Findings, Study, StudyOptions, Work
from pipeline.types import InputError


class SimilarityOptions(StudyOptions):
    """Similarity of several networks on one task's images."""

    benchmark: BenchmarkOptions
    """Where the images come from."""
    split: str = "train"
    """Which of them."""
    rows: int = Field(default=500, ge=2)
    """How many."""
    models: dict[str, ModelOptions]
    """Networks by name: other weights, checkpoints, revisions, seeds."""
    sketch_size: int | None = Field(default=None, ge=1)
    """Parameters kept of each; null for 100,000 or all."""
    center: bool = True
    """Centre the kernels before aligning them (CKA)."""


def run(options: SimilarityOptions, work: Work) -> Findings:
    """One row a pair."""
    if len(options.models) < 2:
        raise InputError("two networks or more can be compared.", "models")
    x = load_splits(options.benchmark, options.split)[options.split].first(options.rows).x
    known: dict[str, StreamedFeatures] = {}

    def features(name: str) -> StreamedFeatures:
        if name not in known:
            known[name] = features_of(build_network(options.models[name]), x, options.sketch_size)
        return known[name]

    pairs = list(combinations(options.models, 2))
    makers = {f"{a}_{b}": partial(_cell, options, features, a, b) for a, b in pairs}
    table = list(work.cells(makers).values())
    return Findings(table, [_plot(table)])


def _cell(
    options: SimilarityOptions, features: Callable[[str], StreamedFeatures], a: str, b: str
) -> dict[str, Any]:
    A, B = features(a), features(b)
    aligned = kernel_alignment(A, B, center=options.center)
    row = {"a": a, "b": b, "kernel alignment": aligned.value, "stderr": aligned.stderr}
    # Parameters correspond only within one architecture.
    alike = _architecture(options.models[a]) == _architecture(options.models[b])
    parameter = parameter_cosine(A, B) if alike else None
    return {
        **row,
        "parameter cosine": parameter.value if parameter else None,
        "parameter stderr": parameter.stderr if parameter else None,
        "Task2Vec": task2vec_cosine(diagonal_fisher(A), diagonal_fisher(B)) if alike else None,
    }


def _architecture(options: Any) -> dict[str, Any]:
    values: dict[str, Any] = options.model_dump(exclude={"weights", "seed"})
    return {**values, "head": values["head"]["outputs"]}


def _plot(table: list[dict[str, Any]]) -> Plot:
    rows = sorted(table, key=lambda row: -row["kernel alignment"])
    series = []
    for name in ("kernel alignment", "parameter cosine", "Task2Vec"):
        pairs = [(row[name], float(i + 1)) for i, row in enumerate(rows) if row[name] is not None]
        if pairs:
            xs, ys = zip(*pairs, strict=True)
            series.append(Series(name, list(xs), list(ys), style="points"))
    names = [f"{row['a']}\n{row['b']}" for row in rows]
    caption = "A parameter has a counterpart only within one architecture."
    panel = Panel("similarity", "", series, names=names)
    return Plot("similarity", "How alike the networks are", caption, [panel])


STUDY = Study(SimilarityOptions, run)
