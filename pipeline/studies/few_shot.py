"""Few-shot regression over many small tasks, as sinusoids and stations share it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from pipeline.analyses.few_shot import (
    LEVEL,
    METHODS,
    ShotTask,
    Source,
    TaskScore,
    pooled,
    task_score,
)
from pipeline.analyses.methods import refuse_unknown_methods
from pipeline.gp.predictive import Predictive
from pipeline.report.plots import Panel, Plot, Series
from pipeline.studies.study import Findings, Work

PANELS = 2
"""Target tasks that the figure shows."""
DRAWN = ("finite_ntk", "network", "rbf_transfer")
"""Methods that it shows, where they were run."""

Carry = Callable[[int], tuple[Source, list[ShotTask]]]
"""From a seed: the source with its network, and the target tasks."""


def few_shot_findings(
    work: Work, carry: Carry, methods: Sequence[str], seeds: Sequence[int]
) -> Findings:
    """One row a method, over the target tasks of all seeds; the first seed's are drawn."""
    refuse_unknown_methods(methods, METHODS)
    makers = {f"seed_{seed}": partial(_cell, carry, methods, seed) for seed in seeds}
    cells = list(work.cells(makers, axes=("seeds",)).values())
    table = [_row(name, [score for cell in cells for score in cell["scores"][name]])
             for name in methods]  # fmt: skip
    return Findings(table, [Plot.of_json(values) for values in cells[0]["plots"]])


def _cell(carry: Carry, methods: Sequence[str], seed: int) -> dict[str, Any]:
    source, tasks = carry(seed)
    found = {name: METHODS[name](source, tasks) for name in methods}
    scores = {
        name: [asdict(task_score(*pair)) for pair in zip(predictions, tasks, strict=True)]
        for name, predictions in found.items()
    }
    plots = [asdict(_plot(tasks, name, found[name])) for name in DRAWN if name in found]
    return {"scores": scores, "plots": plots}


def _row(method: str, scores: list[dict[str, Any]]) -> dict[str, Any]:
    over_tasks = pooled([TaskScore(**score) for score in scores])
    return {
        "method": method,
        "RMSE": over_tasks.rmse,
        "stderr": over_tasks.rmse_stderr,
        "NLL": over_tasks.nll,
        "coverage": over_tasks.coverage,
        "tasks": over_tasks.tasks,
    }


def _plot(tasks: list[ShotTask], method: str, predictions: list[Predictive]) -> Plot:
    panels = [_panel(*pair) for pair in zip(tasks[:PANELS], predictions, strict=False)]
    caption = f"Mean and central {100 * LEVEL:.0f} % interval of {method} on the first targets."
    return Plot(f"tasks_{method}", f"Target tasks by {method}", caption, panels)


def _panel(task: ShotTask, found: Predictive) -> Panel:
    order = task.x_test[:, 0].argsort()
    low, high = (end[order, 0] for end in found.interval(LEVEL))
    x = task.x_test[order, 0]
    # An interval without bound would hide the data.
    values = torch.cat([task.y, task.y_test])
    margin = 0.5 * float(values.max() - values.min())
    ends = float(values.min()) - margin, float(values.max()) + margin
    around = torch.cat([low, high.flip(0)]).double().clamp(*ends)
    series = [
        Series("mean", x.tolist(), found.mean[order, 0].double().clamp(*ends).tolist()),
        Series("interval", [*x.tolist(), *x.flip(0).tolist()], around.tolist(), style="band"),
        Series("truth", x.tolist(), task.y_test[order].tolist()),
        Series("context", task.x[:, 0].tolist(), task.y.tolist(), style="points"),
    ]
    return Panel("x", "y", series, title=task.name)
