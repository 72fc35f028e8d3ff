"""OOD over ID accuracy: methods, the ridges they passed through, and the probit line."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from scipy.stats import norm

from pipeline.metrics.robustness import ProbitLine, probit_line
from pipeline.report.drawing import (
    INK,
    MUTED,
    PUBLISHED_LABEL,
    STYLE,
    Drawn,
    Look,
    legend_above,
    look,
    looks,
    new_figure,
)
from pipeline.report.record import Method, Run, split_label
from pipeline.report.results import EXPLAINS, PUBLISHED

TICKS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Accuracies that a probit axis may name."""

ROOM_BELOW, ROOM_ABOVE = 0.4, 0.15
"""Room around the methods and their errors, on the probit scale: ridges far worse than every method
are left out."""
EXTREME = (0.005, 0.9995)
"""Shares beyond these are as far as an axis goes."""

Pairs = list[tuple[float, float]]


def shift_figure(run: Run, shift: str = "ood_test") -> Drawn | None:
    """OOD over ID accuracy of one run: a hue and a marker a method, its ridges as small points."""
    methods = scored_on_both(run, shift)
    if not methods:
        return None
    facts = run.comparisons.get("effective_robustness", {}).get(shift, {})
    line = ProbitLine(**facts["line"]) if facts else None
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(extra=0.5 + 0.1 * max(0, len(methods) - 4))
        own = looks(method.name for method in run.methods)
        for method in methods:
            _ridges(axes, facts.get("ridges", {}).get(method.name, []), own[method.name])
            _point(axes, method, shift, own[method.name]).set_label(method.label)
        finish_shift(figure, axes, run.benchmark, shift, methods, line)
    caption = "Large points are methods with their standard errors"
    if line is not None:
        caption += (
            "; small points are other ridges of theirs. What lies above the line is effectively "
            "robust (Taori et al. 2020). "
            + _fit_words(line, outside(axes, ridge_pairs(run, shift)))
        )
    name = "shift" if shift == "ood_test" else f"shift-{shift}"
    caption = caption if caption.endswith(".") else f"{caption}."
    return Drawn(name, f"{split_label(shift)} against in distribution", caption, figure)


def comparison_figure(runs: Sequence[Run], shift: str = "ood_test") -> Drawn | None:
    """OOD over ID accuracy of several runs: a hue a run, a marker a method, one line for all."""
    points = [(run, method) for run in runs for method in scored_on_both(run, shift)]
    if not points or runs[0].metric != "accuracy":
        return None
    labels = list(dict.fromkeys(method.label for _, method in points))
    marker = {label: own.marker for label, own in looks(labels).items()}
    hue = {run.folder: look(i).hue for i, run in enumerate(runs)}
    line = joint_line(runs, shift)
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(extra=0.5 + 0.1 * max(0, len(labels) + len(runs) - 4))
        for run in runs:
            _ridges(axes, ridge_pairs(run, shift), Look(hue[run.folder], "-", "."))
        for run, method in points:
            _point(axes, method, shift, Look(hue[run.folder], "-", marker[method.label]))
        for run in runs:
            axes.plot([], [], "_", mew=5, ms=11, color=hue[run.folder], label=run.name)
        for label in labels:
            axes.plot([], [], marker[label], color=MUTED, label=label)
        finish_shift(figure, axes, runs[0].benchmark, shift, [m for _, m in points], line)
    caption = "Hue: run; marker: method. Bars are one standard error in either direction."
    if line is not None:
        pairs = [pair for run in runs for pair in ridge_pairs(run, shift)]
        caption += " Of all runs: " + _fit_words(line, outside(axes, pairs))
    return Drawn("comparison", "Under shift against in distribution", caption, figure)


def outside(axes: Axes, pairs: Pairs) -> int:
    """How many of the pairs that a line is fitted to lie outside the frame."""
    low, high = axes.get_xlim(), axes.get_ylim()
    return sum(
        not (low[0] <= x <= low[1] and high[0] <= y <= high[1])
        for x, y in pairs
        if 0 < x < 1 and 0 < y < 1
    )


def _fit_words(line: ProbitLine, hidden: int) -> str:
    """What a line was fitted to, how well, and what of it the frame does not show."""
    words = (
        f"The line is fitted on the probit scale (n = {line.points}, r = {line.correlation:.2f}, "
        f"slope {line.slope:.2f})"
    )
    if hidden:
        words += f"; {hidden} of the {line.points} points lie outside the frame"
    if abs(line.correlation) < EXPLAINS:
        words += ". It explains little here: read effective robustness with care"
    return words + "."


def scored_on_both(run: Run, shift: str) -> list[Method]:
    """The methods that have an accuracy on ID test and on the shift."""
    return [m for m in run.methods if {"id_test", shift} <= set(m.splits)]


def ridge_pairs(run: Run, shift: str) -> Pairs:
    """(ID, OOD) accuracies of every ridge of every method of a run."""
    along = run.comparisons.get("effective_robustness", {}).get(shift, {}).get("ridges", {})
    return [(x, y) for pairs in along.values() for x, y in pairs]


def joint_line(runs: Sequence[Run], shift: str) -> ProbitLine | None:
    """The probit line through all methods and ridges of several runs."""
    pairs = [pair for run in runs for pair in ridge_pairs(run, shift)]
    for run in runs:
        for method in scored_on_both(run, shift):
            x, y = method.splits["id_test"], method.splits[shift]
            pairs.append((x["accuracy"], y["accuracy"]))
    return probit_line([x for x, _ in pairs], [y for _, y in pairs])


def finish_shift(
    figure: Figure,
    axes: Axes,
    benchmark: str,
    shift: str,
    methods: Sequence[Method],
    line: ProbitLine | None,
) -> None:
    """Probit axes around the methods, the line, published points, labels and legend."""
    x = _ends([method.splits["id_test"] for method in methods])
    y = _ends([method.splits[shift] for method in methods])
    published = PUBLISHED.get(benchmark, {}) if shift == "ood_test" else {}
    if published:
        xs, ys = ([value / 100 for value in row] for row in zip(*published.values(), strict=True))
        axes.plot(xs, ys, "o", mfc="none", mec=MUTED, label=PUBLISHED_LABEL)
        x, y = [*x, *xs], [*y, *ys]
    _probit_axis(axes, "x", x)
    _probit_axis(axes, "y", y)
    if line is not None:
        grid = np.linspace(*axes.get_xlim(), 100)
        expected = [line.expected(value) for value in grid]
        axes.plot(grid, expected, color=INK, linewidth=1.1, zorder=1, label="probit line")
    axes.set_xlabel(f"{split_label('id_test')} accuracy, % (probit scale)")
    axes.set_ylabel(f"{split_label(shift)} accuracy, %")
    legend_above(figure, axes)


def _probit_axis(axes: Axes, which: str, shares: Sequence[float]) -> None:
    low, high = (
        float(norm.cdf(_probit(np.clip(end, *EXTREME)) + room))
        for end, room in ((min(shares), -ROOM_BELOW), (max(shares), ROOM_ABOVE))
    )
    mapping: Mapping[str, Any] = {"functions": (_probit, norm.cdf)}
    getattr(axes, f"set_{which}scale")("function", **mapping)
    getattr(axes, f"set_{which}lim")(low, high)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    getattr(axes, f"set_{which}ticks")(ticks, [f"{100 * tick:g}" for tick in ticks])


def _probit(shares: Any) -> Any:
    """Φ⁻¹, kept finite for values that an axis asks for beyond its limits."""
    return norm.ppf(np.clip(shares, 1e-6, 1 - 1e-6))


def _ends(scores: Sequence[Mapping[str, Any]]) -> list[float]:
    """Both ends of each accuracy's error bar."""
    return [s["accuracy"] + sign * s["stderr"] for s in scores for sign in (-1, 1)]


def _ridges(axes: Axes, pairs: Sequence[Sequence[float]], own: Look) -> None:
    if pairs:
        size = 3 if own.marker == "." else 2.5
        axes.plot(*zip(*pairs, strict=True), own.marker, color=own.hue, ms=size, alpha=0.5, mew=0)


def _point(axes: Axes, method: Method, shift: str, own: Look) -> ErrorbarContainer:
    x, y = method.splits["id_test"], method.splits[shift]
    return axes.errorbar(
        x["accuracy"],
        y["accuracy"],
        xerr=x["stderr"],
        yerr=y["stderr"],
        fmt=own.marker,
        color=own.hue,
        markersize=7,
        elinewidth=1.3,
        zorder=3,
    )
