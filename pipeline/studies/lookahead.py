"""Look-ahead scores against the truth: retraining the network with every candidate."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pydantic import Field
from scipy import stats
from torch import Tensor, nn

from pipeline.analyses.around import trained_outputs
from pipeline.analyses.full_kernel import kernel_of
from pipeline.analyses.infinite_width import infinite_width_ntk
from pipeline.analyses.learning_path import real_step
from pipeline.analyses.lookahead import DensePool, LookAhead
from pipeline.analyses.width_networks import Architecture, make_network
from pipeline.registry import BenchmarkOptions
from pipeline.report.plots import Panel, Plot, Series
from pipeline.studies.images import Labelled, load_splits
from pipeline.studies.study import Findings, Sizes, Study, StudyOptions, Work
from pipeline.types import InputError


class LookaheadOptions(StudyOptions):
    """Look-ahead against retraining."""

    benchmark: BenchmarkOptions
    """Where images and classes come from."""
    network: Architecture = "fully_connected"
    """Architecture."""
    widths: Sizes = (32, 128)
    """Widths compared."""
    labelled: int = Field(default=40, ge=2)
    """Images that the network is trained on."""
    pool: int = Field(default=60, ge=2)
    """Images that follow: candidates, and where changes are measured."""
    warm_steps: int = Field(default=1_000, ge=1)
    """Full-batch steps on the labelled images, squared loss."""
    steps: int = Field(default=1_000, ge=1)
    """Full-batch steps of every retraining, from the trained network, with the candidate."""
    ridge: float = Field(default=1e-3, gt=0)
    """Of the look-ahead, relative to the mean of the kernel's diagonal."""
    sgd_step: float = Field(default=0.01, gt=0)
    """Size of the single step on a candidate alone."""
    seeds: int = Field(default=3, ge=1)
    """Networks and images."""


def run(options: LookaheadOptions, work: Work) -> Findings:
    """Rank correlations with retraining, and seconds for all candidates."""
    data = load_splits(options.benchmark, "train")["train"]
    if options.labelled + options.pool > len(data):
        raise InputError(
            f"{options.labelled} labelled images and a pool of {options.pool} are asked for, "
            f"{len(data)} are there.",
            "labelled",
        )
    makers = {
        f"{width}_{seed}": partial(_cell, options, data, width, seed)
        for width in options.widths
        for seed in range(options.seeds)
    }
    found = work.cells(makers, axes=("widths", "seeds"))
    table = [
        {
            "width": width,
            "seed": seed,
            **{
                f"{kind}: Spearman": found[f"{width}_{seed}"]["rank"][kind]
                for kind in _kinds(options)
            },
            **{
                f"{kind}, s": found[f"{width}_{seed}"]["seconds"][kind]
                for kind in (*_kinds(options), "retraining")
            },
        }
        for width in options.widths
        for seed in range(options.seeds)
    ]
    numbers = {
        f"{kind}: Spearman, width {width}": _mean(
            [row[f"{kind}: Spearman"] for row in table if row["width"] == width]
        )
        for kind in _kinds(options)
        for width in options.widths
    }
    for kind in (*_kinds(options), "retraining"):
        numbers[f"{kind}, s"] = _mean([row[f"{kind}, s"] for row in table])
    return Findings(table, [_plot(options, found)], numbers=numbers)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _cell(options: LookaheadOptions, data: Labelled, width: int, seed: int) -> dict[str, Any]:
    """Every candidate's score by each road, and by retraining."""
    n, m = options.labelled, options.pool
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[: n + m]
    x, labels = data.x[chosen], data.labels[chosen]
    model = _trained(options, x[:n], labels[:n], data.k, width, seed)
    with torch.no_grad():
        outputs = model(x).double()
    scores: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    roads: dict[str, Callable[[], Tensor]] = {
        "full": lambda: _looked_ahead(options, kernel_of(model, x), labels, outputs),
        "pseudo": lambda: _looked_ahead(
            options, kernel_of(model, x, output="random_direction"), labels, outputs
        ),
        "infinite width": lambda: _looked_ahead(options, infinite_width_ntk(x), labels, outputs),
        "SGD step": lambda: _stepped(options, model, x, outputs),
        "retraining": lambda: _retrained(options, model, x, labels, outputs),
    }
    for kind in (*_kinds(options), "retraining"):
        started = time.perf_counter()
        scores[kind] = roads[kind]()
        seconds[kind] = time.perf_counter() - started
    truth = scores.pop("retraining")
    rank = {
        k: float(stats.spearmanr(s.numpy(), truth.numpy()).statistic) for k, s in scores.items()
    }
    return {
        "rank": rank,
        "seconds": seconds,
        "truth": truth.tolist(),
        **{kind: values.tolist() for kind, values in scores.items()},
    }


def _trained(
    options: LookaheadOptions, x: Tensor, labels: Tensor, k: int, width: int, seed: int
) -> nn.Module:
    """The network after many full-batch steps on the labelled images."""
    model = make_network(options.network, x.shape[1:], width, k, seed)
    Y = torch.nn.functional.one_hot(labels, k).float()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(options.warm_steps):
        loss = (model(x) - Y).square().sum(dim=1).mean() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def _looked_ahead(options: LookaheadOptions, K: Tensor, labels: Tensor, outputs: Tensor) -> Tensor:
    """MLMOC by block updates, the change measured from the network as it is."""
    n, m = options.labelled, len(outputs)
    ridge = options.ridge * float(K.diagonal().mean())
    kernel = DensePool(K, len(K) // m)
    state = LookAhead.start(kernel, outputs, range(n), labels[:n].tolist(), ridge)
    return state.scores(range(n, m), "mlmoc", reference=outputs)


def _kinds(options: LookaheadOptions) -> tuple[str, ...]:
    """What predicts; the width limit is known of fully connected networks."""
    limit = ("infinite width",) if options.network == "fully_connected" else ()
    return ("full", "pseudo", *limit, "SGD step")


def _stepped(options: LookaheadOptions, model: nn.Module, x: Tensor, outputs: Tensor) -> Tensor:
    """The change by one SGD step on the candidate alone."""
    found = []
    for i in range(options.labelled, len(x)):
        Y = _supposed(outputs[i : i + 1])
        step = real_step(model, x, x[i : i + 1], Y, options.sgd_step, "squared")
        found.append(step.outputs.double().norm(dim=1).sum())
    return torch.stack(found)


def _retrained(
    options: LookaheadOptions, model: nn.Module, x: Tensor, labels: Tensor, outputs: Tensor
) -> Tensor:
    """The change by training on the labelled images and the candidate together."""
    n, k = options.labelled, outputs.shape[1]
    known = torch.nn.functional.one_hot(labels[:n], k)
    step = 0.9 / float(torch.linalg.eigvalsh(kernel_of(model, x[: n + 1]))[-1])
    found = []
    for i in range(n, len(x)):
        rows = torch.cat([x[:n], x[i : i + 1]])
        Y = torch.cat([known, _supposed(outputs[i : i + 1])])
        [after] = trained_outputs(model, rows, x, Y, step, [options.steps])
        found.append((after - outputs).norm(dim=1).sum())
    return torch.stack(found)


def _supposed(outputs: Tensor) -> Tensor:
    """The most likely label of each row, one-hot."""
    return torch.nn.functional.one_hot(outputs.argmax(dim=1), outputs.shape[1]).float()


def _plot(options: LookaheadOptions, found: dict[str, Any]) -> Plot:
    cell = found[f"{options.widths[-1]}_0"]
    series = [Series(kind, cell["truth"], cell[kind], style="points") for kind in _kinds(options)]
    caption = (
        f"Summed change of the outputs on {options.pool + options.labelled} images, width "
        f"{options.widths[-1]}: one point a candidate."
    )
    panel = Panel("by retraining", "by score", series, xlog=True, ylog=True)
    return Plot("lookahead", "Look-ahead against retraining", caption, [panel])


STUDY = Study(LookaheadOptions, run)
