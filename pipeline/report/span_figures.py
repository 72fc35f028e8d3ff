"""Accuracy by how far a test row lies outside the span of the training features."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from pipeline.report.drawing import (
    MUTED,
    SPLIT_STYLE,
    STYLE,
    Drawn,
    Look,
    legend_above,
    looks,
    new_figure,
)
from pipeline.report.record import Run, split_label

METHODS = ("entk", "linear_probe", "linear_probe_ridge", "finetune")
"""Who is drawn: the kernel machine and what it is asked to be better than."""
SPLITS = ("id_test", "ood_test")


def span_figure(run: Run) -> Drawn | None:
    """Accuracy over the share outside: a hue and marker a method, a dash a split."""
    found = run.comparisons.get("outside_span")
    if not found:
        return None
    methods = [method for method in run.methods if method.name in METHODS and method.splits]
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(extra=0.5)
        look_of = looks(method.name for method in run.methods)
        for method in methods:
            own = look_of[method.name]
            axes.plot([], [], own.marker, color=own.hue, label=method.label)
            for split in SPLITS:
                facts = found["splits"].get(split, {})
                if method.name in facts.get("methods", {}):
                    _line(axes, facts, method.name, split, own)
        for split in SPLITS:
            if split in found["splits"]:
                axes.plot([], [], ls=SPLIT_STYLE[split][1], color=MUTED, label=split_label(split))
        axes.set_xlabel("share of k(x, x) outside the training span, %")
        axes.set_ylabel("accuracy, %")
        legend_above(figure, axes)
    caption = (
        "r = 1 − kₓᵀ K⁺ kₓ / k(x, x), at the means of groups that are equal in size over all test "
        f"splits together; bars are one standard error. K⁺ counts {found['rank']:,} of "
        f"{found['n']:,} eigenvalues, those above {found['tolerance']:g} of the largest."
    )
    return Drawn("outside-span", "Outside the span of the training features", caption, figure)


def _line(axes: Axes, facts: dict[str, Any], method: str, split: str, own: Look) -> None:
    dash = SPLIT_STYLE[split][1]
    scores = facts["methods"][method]
    bars = [100.0 * (stderr or 0.0) for stderr in scores["stderr"]]
    x, y = 100.0 * np.array(facts["share"]), 100.0 * np.array(scores["mean"])
    axes.errorbar(
        x, y, yerr=bars, fmt=own.marker, ls=dash, color=own.hue, markersize=5, elinewidth=1.1
    )
