"""Curves over adaptation points, as malaria rates and rotated faces share them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.analyses.adaptation_curve import METHODS, Carried, curve_point
from pipeline.analyses.few_shot import ShotTask
from pipeline.analyses.methods import refuse_unknown_methods
from pipeline.report.plots import Panel, Plot, Series
from pipeline.studies.study import Findings, Work
from pipeline.types import InputError

Target = tuple[Tensor, Tensor]
"""Inputs and targets of a task."""


def adaptation_findings(
    work: Work,
    carry: Callable[[int], tuple[Carried, Target, Target]],
    sizes: Sequence[int],
    methods: Sequence[str],
    seeds: Sequence[int],
    unit: str,
) -> Findings:
    """One row a method and number of points, means over seeds with standard errors.

    ``carry(seed)`` gives the source's network, the pool that points are drawn from, and the
    held-out points.
    """
    refuse_unknown_methods(methods, METHODS)
    makers = {f"seed_{s}": partial(_cell, carry, sizes, methods, s) for s in seeds}
    cells = work.cells(makers, axes=("seeds",))
    table = []
    for method in methods:
        for size in sizes:
            found = [
                row
                for cell in cells.values()
                for row in cell["rows"]
                if (row["method"], row["points"]) == (method, size)
            ]
            table.append({"method": method, "points": size, **_summary(found)})
    notes = [
        f"{name}: the source was learned from start {cell['start'] + 1} of the weights; those "
        "before it stayed at the mean"
        for name, cell in cells.items()
        if cell["start"]
    ]
    return Findings(table, [_plot(table, methods, unit)], notes)


def _cell(
    carry: Callable[[int], tuple[Carried, Target, Target]],
    sizes: Sequence[int],
    methods: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    carried, (x, y), (x_test, y_test) = carry(seed)
    if max(sizes) > len(x):
        raise InputError(f"{max(sizes)} points are asked for, the target has {len(x)}.", "points")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    rows = []
    for size in sizes:
        chosen = order[:size]
        rows += curve_point(carried, ShotTask(x[chosen], y[chosen], x_test, y_test), methods)
    return {"rows": rows, "start": carried.start}


def _summary(found: list[dict[str, Any]]) -> dict[str, float]:
    rmse = np.array([row["rmse"] for row in found])
    spread = float(rmse.std(ddof=1) / len(rmse) ** 0.5) if len(rmse) > 1 else 0.0
    means = {key: float(np.mean([row[key] for row in found])) for key in ("nll", "coverage")}
    return {"RMSE": float(rmse.mean()), "stderr": spread, "NLL": means["nll"],
            "coverage": means["coverage"], "seeds": len(found)}  # fmt: skip


def _plot(table: list[dict[str, Any]], methods: Sequence[str], unit: str) -> Plot:
    panels = []
    for key, label in (("RMSE", f"RMSE, {unit}"), ("NLL", "NLL, nats")):
        lines = []
        for method in methods:
            rows = [row for row in table if row["method"] == method]
            errors = [row["stderr"] for row in rows] if key == "RMSE" else None
            xs = [float(row["points"]) for row in rows]
            lines.append(Series(method, xs, [row[key] for row in rows], errors))
        panels.append(Panel("adaptation points", label, lines, xlog=True))
    caption = "Held-out points of the target task; one standard error over seeds."
    return Plot("adaptation", "Error over adaptation points", caption, panels)
