"""Regression on a whole data set by the pseudo-NTK alone, over width, beside SGD."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import psutil
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pipeline.analyses.primal_regression import Moments
from pipeline.analyses.width_networks import Architecture, make_network
from pipeline.baselines.training import Progress, Recipe
from pipeline.jacobian import FeatureExtractor
from pipeline.log import BlockDone
from pipeline.metrics.errors import accuracy_stderr
from pipeline.registry import BenchmarkOptions
from pipeline.report.plots import Panel, Plot, Series
from pipeline.sketch import make_sketch
from pipeline.studies.backbones import outputs_of
from pipeline.studies.images import Labelled, load_splits
from pipeline.studies.study import Findings, Rates, Sizes, Study, StudyOptions, Work
from pipeline.studies.training import trained
from pipeline.types import InputError

STATES = ("initial", "trained")
TARGETS = ("from the class means", "around the network")
"""What the regression starts from: nothing but the classes' frequencies, or f₀ of the network."""
AXES = ("widths", "seeds")
"""Options that say which networks there are."""
BATCH = 256
"""Images of one pass."""
BLOCK = 32 * BATCH
"""Images between two savings of the sums."""


class FullDataOptions(StudyOptions):
    """Pseudo-NTK regression on all training images, streamed."""

    benchmark: BenchmarkOptions
    """Where images and classes come from; `val` chooses the ridge and is then fitted, too."""
    network: Architecture = "resnet"
    """Architecture."""
    widths: Sizes = (4, 8, 16, 32)
    """Widths compared."""
    output: Literal["first", "sum", "random_direction"] = "first"
    """The scalar that the pseudo-NTK is taken of."""
    sketch_size: int = Field(default=8_192, ge=1)
    """Parameters kept of wider networks, drawn uniformly; narrower ones keep all."""
    train: int | None = Field(default=None, ge=2)
    """Training images; null for all."""
    ridges: Rates = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
    """Tried on `val`, relative to the mean of the kernel's diagonal."""
    epochs: int = Field(default=10, ge=1)
    """Of SGD with momentum 0.9, crops and flips, and a cosine; the best on `val` counts."""
    learning_rate: float = Field(default=0.05, gt=0)
    """Its first step size."""
    batch_size: int = Field(default=128, ge=1)
    """Images of a step."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Of SGD."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of SGD's passes; gradients of the kernel are float32."""
    seeds: int = Field(default=1, ge=1)
    """Networks of each width."""


def run(options: FullDataOptions, work: Work) -> Findings:
    """Test accuracy over width: the pseudo-NTK before and after training, and SGD."""
    case = _Case(options, work)
    places = [(width, seed) for width in options.widths for seed in range(options.seeds)]
    makers: dict[str, Any] = {}
    for width, seed in places:
        makers[f"sgd_{width}_{seed}"] = partial(case.network_row, width, seed)
        for state in STATES:
            makers[f"{state}_{width}_{seed}"] = partial(case.kernel_rows, state, width, seed)
    found = work.cells(makers, axes=AXES)
    table = [row for rows in found.values() for row in rows]
    notes = [case.memory_note(), *_at_an_end(options, table)]
    return Findings(table, [_plot(options, case.fitted, table)], notes)


class _Case:
    """All images, and what is done to one network."""

    def __init__(self, options: FullDataOptions, work: Work) -> None:
        self.options, self.work = options, work
        self.data = load_splits(options.benchmark, "train", "val", "id_test")
        if options.train is not None:
            self.data["train"] = self.data["train"].first(options.train, "train")

    @property
    def fitted(self) -> int:
        """Images that the final regressions are fitted to."""
        return len(self.data["train"]) + len(self.data["val"])

    def network_row(self, width: int, seed: int) -> list[dict[str, Any]]:
        """The accuracy of the network that SGD made."""
        model, outcome = self._trained(width, seed)
        test = self.data["id_test"]
        hits = (outputs_of(model, test.x).argmax(dim=1) == test.labels).double().mean()
        return [self._row(model, width, seed, "SGD", None, outcome.best_accuracy, float(hits))]

    def kernel_rows(self, state: str, width: int, seed: int) -> list[dict[str, Any]]:
        """The accuracy of the regressions; ``val`` chooses their ridges and is then fitted, too."""
        model = self._trained(width, seed)[0] if state == "trained" else self._fresh(width, seed)
        stream = _Stream(model, self.options, self._mean())
        moments = self._moments(stream, f"{state}_{width}_{seed}")
        val, test = self.data["val"], self.data["id_test"]
        held = list(stream.batches(val))
        by_ridge = moments.solve(self.options.ridges)
        scores = [_accuracies(held, theta, val) for theta in by_ridge]
        best = [max(range(len(scores)), key=lambda i: scores[i][t]) for t in range(len(TARGETS))]
        for batch in held:
            moments.add(batch.phi, batch.targets)
        ridges = [self.options.ridges[i] for i in best]
        final = moments.solve(sorted(set(ridges)))
        theta = [final[sorted(set(ridges)).index(ridge)].chunk(2, dim=1)[t]
                 for t, ridge in enumerate(ridges)]  # fmt: skip
        found = _accuracies(stream.batches(test), torch.cat(theta, dim=1), test)
        return [
            self._row(
                model, width, seed, f"{state}, {name}", ridges[t], scores[best[t]][t], found[t]
            )
            for t, name in enumerate(TARGETS)
        ]

    def memory_note(self) -> str:
        """What the kernels would take, and what was held."""
        n, k = self.fitted, self.data["train"].k
        pseudo, full = 4 * n * n / 1e9, 4 * (n * k) ** 2 / 1e9
        return (
            f"{n} rows, {k} outputs: in float32 the pseudo-NTK is {pseudo:.4g} GB, the full eNTK "
            f"{full:.4g} GB; neither was formed, "
            f"{8 * self.options.sketch_size**2 / 1e9:.2g} GB of sums over features were"
        )

    def _fresh(self, width: int, seed: int) -> nn.Module:
        train_split = self.data["train"]
        image = train_split.x.shape[1:]
        return make_network(self.options.network, image, width, train_split.k, seed)

    def _trained(self, width: int, seed: int) -> tuple[nn.Module, Progress]:
        """The network after SGD, taken up from its checkpoint."""
        model, options = self._fresh(width, seed), self.options
        recipe = Recipe(
            learning_rate=options.learning_rate,
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=seed,
            weight_decay=options.weight_decay,
            augmentation="crop_flip",
            precision=options.precision,
        )
        made_from = self.work.made_from((*AXES, "ridges", "sketch_size", "output"), width)
        outcome = trained(self.work, f"sgd_{width}_{seed}", model, self.data, recipe, made_from)
        if outcome.best_state is None:
            raise InputError(f"width {width}: {outcome.diverged}.", "learning_rate")
        model.load_state_dict(outcome.best_state)
        return model.eval(), outcome

    def _moments(self, stream: "_Stream", name: str) -> Moments:
        """The sums over all training images, continued where they were last saved."""
        data, path = self.data["train"], self.work.checkpoint(f"{name}.sums")
        made_from = self.work.made_from((*AXES, "ridges"), name)
        moments = Moments.kept(path, made_from) or stream.nothing()
        self.work.progress.start(name, len(data), moments.rows, "images")
        while moments.rows < len(data):
            started, first = time.perf_counter(), moments.rows
            for batch in stream.batches(data.part(first, first + BLOCK)):
                moments.add(batch.phi, batch.targets)
            moments.save(path, made_from)
            seconds, peak = time.perf_counter() - started, psutil.Process().memory_info().rss
            done = moments.rows - first
            self.work.progress.advance(BlockDone(name, first // BLOCK, done, seconds, peak))
        self.work.progress.finish(name)
        return moments

    def _mean(self) -> Float[Tensor, " k"]:
        return self.data["train"].one_hot().mean(dim=0)

    def _row(
        self,
        model: nn.Module,
        width: int,
        seed: int,
        method: str,
        ridge: float | None,
        on_val: float,
        on_test: float,
    ) -> dict[str, Any]:
        parameters = sum(p.numel() for p in model.parameters())
        n = len(self.data["id_test"])
        return {
            "width": width,
            "seed": seed,
            "parameters": parameters,
            "kept": None if ridge is None else min(parameters, self.options.sketch_size),
            "method": method,
            "ridge": ridge,
            "val, %": 100 * on_val,
            "id_test, %": 100 * on_test,
            "stderr": 100 * accuracy_stderr(on_test, n),
        }


@dataclass(frozen=True)
class _Batch:
    """Some images' features and what the regressions fit there, or start from."""

    phi: Float[Tensor, "b p"]
    targets: Float[Tensor, "b t"]
    start: Float[Tensor, "b t"]


class _Stream:
    """One network's features, images after images; none is kept."""

    def __init__(
        self, model: nn.Module, options: FullDataOptions, mean: Float[Tensor, " k"]
    ) -> None:
        kept = min(options.sketch_size, sum(p.numel() for p in model.parameters()))
        sketch = make_sketch("uniform", model, kept)
        self._weights = torch.as_tensor(sketch.column_weights).float()
        output = 0 if options.output == "first" else options.output
        self._extract = FeatureExtractor(model, sketch, output=output)
        self._mean = mean

    def nothing(self) -> Moments:
        """The sums over no image."""
        return Moments.empty(len(self._weights), len(TARGETS) * len(self._mean))

    def batches(self, samples: Labelled) -> Iterator[_Batch]:
        """All samples in order."""
        for x, one_hot in zip(samples.x.split(BATCH), samples.one_hot().split(BATCH), strict=True):
            found = self._extract(x)
            start = torch.cat([self._mean.expand(len(x), -1), found.f0.float()], dim=1)
            targets = torch.cat([one_hot, one_hot], dim=1) - start
            yield _Batch(found.phi.float() * self._weights, targets, start)


def _accuracies(
    batches: Iterable[_Batch], theta: Float[Tensor, "p t"], samples: Labelled
) -> list[float]:
    """Of every kind of target."""
    parts = [batch.start + batch.phi @ theta.float() for batch in batches]
    scores = torch.cat(parts).chunk(len(TARGETS), dim=1)
    return [float((s.argmax(dim=1) == samples.labels).double().mean()) for s in scores]


def _at_an_end(options: FullDataOptions, table: list[dict[str, Any]]) -> list[str]:
    """What the reader must know where the best ridge may lie outside of those tried."""
    ends = {options.ridges[0], options.ridges[-1]}
    rows = [f"{row['method']} at width {row['width']}" for row in table if row["ridge"] in ends]
    return [f"the best ridge lies at an end of those tried for {'; '.join(rows)}"] if rows else []


def _plot(options: FullDataOptions, fitted: int, table: list[dict[str, Any]]) -> Plot:
    series = []
    for method in dict.fromkeys(row["method"] for row in table):
        means = []
        for width in options.widths:
            rows = [r for r in table if (r["method"], r["width"]) == (method, width)]
            means.append(sum(row["id_test, %"] for row in rows) / len(rows))
        label = method.replace("from the class means", "means").replace("around the network", "f₀")
        series.append(Series(label, [float(w) for w in options.widths], means))
    caption = (
        f"{fitted} training images; pseudo-NTK of one logit on at most {options.sketch_size} "
        "parameters, around the class means or the network's outputs f₀."
    )
    panel = Panel("width", "test accuracy, %", series, xlog=True)
    return Plot("width", f"Regression by the pseudo-NTK alone, {options.network}", caption, [panel])


STUDY = Study(FullDataOptions, run)
