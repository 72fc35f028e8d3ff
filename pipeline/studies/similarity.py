"""How alike networks are: parameter cosine, kernel alignment and Task2Vec, pair by pair."""

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

from pydantic import Field
from torch import Tensor

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
    tasks: dict[str, BenchmarkOptions] = Field(default_factory=dict)
    """Further tasks by name; each network is compared with itself and the others on them, too."""
    sketch_size: int | None = Field(default=None, ge=1)
    """Parameters kept of each; null for 100,000 or all."""
    center: bool = True
    """Centre the kernels before aligning them (CKA)."""


def run(options: SimilarityOptions, work: Work) -> Findings:
    """One row a pair of networks, or of networks on tasks."""
    items = {name: _Item(name, None) for name in options.models} | {
        f"{name} on {task}": _Item(name, task) for task in options.tasks for name in options.models
    }
    if len(items) < 2:
        raise InputError("two networks or more can be compared, or one on two tasks.", "models")
    features = _Features(options)
    pairs = list(combinations(items, 2))
    makers = {
        f"{a}_{b}": partial(_cell, options, features, {a: items[a], b: items[b]}) for a, b in pairs
    }
    own = {f"{a}_{b}": [_described(work, items[name]) for name in (a, b)] for a, b in pairs}
    table = list(work.cells(makers, axes=("models", "tasks"), own=own).values())
    return Findings(table, [_plot(table)])


@dataclass(frozen=True)
class _Item:
    """A network on a task; None is the config's own benchmark."""

    model: str
    task: str | None


def _described(work: Work, item: _Item) -> list[Any]:
    """The network's options and the task's, as plain values."""
    return [work.options["models"][item.model], work.options["tasks"].get(item.task)]


class _Features:
    """Gradient features of networks on tasks, made when first asked for."""

    def __init__(self, options: SimilarityOptions) -> None:
        self._options = options
        self._images: dict[str | None, Tensor] = {}
        self._known: dict[_Item, StreamedFeatures] = {}

    def __call__(self, item: _Item) -> StreamedFeatures:
        if item not in self._known:
            network = build_network(self._options.models[item.model])
            x = self._of_task(item.task)
            self._known[item] = features_of(network, x, self._options.sketch_size)
        return self._known[item]

    def _of_task(self, task: str | None) -> Tensor:
        if task not in self._images:
            options, split = self._options, self._options.split
            benchmark = options.benchmark if task is None else options.tasks[task]
            self._images[task] = load_splits(benchmark, split)[split].first(options.rows, "rows").x
        return self._images[task]


def _cell(
    options: SimilarityOptions, features: _Features, pair: dict[str, _Item]
) -> dict[str, Any]:
    (a, left), (b, right) = pair.items()
    A, B = features(left), features(right)
    # Kernels are compared on the same samples, parameters within one architecture.
    aligned = kernel_alignment(A, B, center=options.center) if left.task == right.task else None
    alike = _architecture(options.models[left.model]) == _architecture(options.models[right.model])
    parameter = parameter_cosine(A, B) if alike else None
    return {
        "a": a,
        "b": b,
        "kernel alignment": aligned.value if aligned else None,
        "stderr": aligned.stderr if aligned else None,
        "parameter cosine": parameter.value if parameter else None,
        "parameter stderr": parameter.stderr if parameter else None,
        "Task2Vec": task2vec_cosine(diagonal_fisher(A), diagonal_fisher(B)) if alike else None,
    }


def _architecture(options: Any) -> dict[str, Any]:
    values: dict[str, Any] = options.model_dump(exclude={"weights", "seed"})
    return {**values, "head": values["head"]["outputs"]}


def _plot(table: list[dict[str, Any]]) -> Plot:
    rows = sorted(table, key=lambda row: -(row["kernel alignment"] or 0.0))
    series = []
    for name in ("kernel alignment", "parameter cosine", "Task2Vec"):
        pairs = [(row[name], float(i + 1)) for i, row in enumerate(rows) if row[name] is not None]
        if pairs:
            xs, ys = zip(*pairs, strict=True)
            series.append(Series(name, list(xs), list(ys), style="points"))
    names = [f"{row['a']}\n{row['b']}" for row in rows]
    caption = "Kernels are compared on the same images, parameters within one architecture."
    panel = Panel("similarity", "", series, names=names)
    return Plot("similarity", "How alike the networks are", caption, [panel])


STUDY = Study(SimilarityOptions, run)
