"""The report's figures, drawn by matplotlib: one small figure an idea, legible at phone width.

Hues are Okabe and Ito's, told apart by the colour-blind; marker and dash repeat what the hue says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.report.record import Method, Run, split_label
from pipeline.report.results import METRIC_LABELS, PERCENT, PUBLISHED

INK, MUTED, GRID = "#1a1c1f", "#5d636b", "#d9dce0"
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#e69f00",
    "#cc79a7",
    "#56b4e9",
)
HUES = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SPLIT_STYLE = {
    "val": (MUTED, (0, (1, 1.4)), "^"),
    "id_test": (BLUE, "-", "o"),
    "ood_test": (VERMILLION, (0, (5, 1.6)), "s"),
}
OTHER_STYLE = [
    (GREEN, (0, (3, 1, 1, 1)), "D"),
    (PURPLE, (0, (6, 1, 1, 1)), "v"),
    (ORANGE, "-", "P"),
]

# Typed loosely: the stubs want every key as a literal.
STYLE: Any = {
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.7,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "svg.fonttype": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
WIDTH, HEIGHT = 4.6, 3.25
"""Inches: 331 points wide, so that a phone shows the letters at their printed size."""

PUBLISHED_LABEL = "published (poster)"


@dataclass(frozen=True)
class Drawn:
    """A figure with the words around it."""

    name: str
    title: str
    caption: str
    figure: Figure


def all_figures(run: Run) -> list[Drawn]:
    """Every figure that the run's artefacts allow."""
    drawn = [shift_figure(run)] if run.metric == "accuracy" else []
    for method in run.methods:
        drawn += [iterations_figure(run, method), ridge_figure(run, method)]
        drawn.append(risk_figure(method))
    drawn.append(columns_figure(run))
    return [figure for figure in drawn if figure is not None]


def shift_figure(run: Run) -> Drawn | None:
    """OOD accuracy over ID accuracy, one point a method with its standard errors."""
    methods = [method for method in run.methods if {"id_test", "ood_test"} <= set(method.splits)]
    if not methods:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = _new(extra=0.1 * max(0, len(methods) - 4))
        for index, method in enumerate(methods):
            marker = MARKERS[index % len(MARKERS)]
            _point(axes, method, HUES[index % len(HUES)], marker).set_label(method.label)
        _finish_shift(figure, axes, run.benchmark)
    caption = "Each point is a method; bars are one standard error in either direction."
    return Drawn("shift", "Under shift against in distribution", caption, figure)


def comparison_figure(runs: Sequence[Run]) -> Drawn | None:
    """OOD accuracy over ID accuracy of several runs: a hue a run, a marker a method."""
    both = {"id_test", "ood_test"}
    points = [(run, m) for run in runs for m in run.methods if both <= set(m.splits)]
    if not points or runs[0].metric != "accuracy":
        return None
    labels = list(dict.fromkeys(method.label for _, method in points))
    marker = {label: MARKERS[i % len(MARKERS)] for i, label in enumerate(labels)}
    hue = {run.folder: HUES[i % len(HUES)] for i, run in enumerate(runs)}
    with mpl.rc_context(STYLE):
        figure, axes = _new(extra=0.1 * max(0, len(labels) + len(runs) - 4))
        for run, method in points:
            _point(axes, method, hue[run.folder], marker[method.label])
        for run in runs:
            axes.plot([], [], "_", mew=5, ms=11, color=hue[run.folder], label=run.name)
        for label in labels:
            axes.plot([], [], marker[label], color=MUTED, label=label)
        _finish_shift(figure, axes, runs[0].benchmark)
    caption = "Hue: run; marker: method. Bars are one standard error in either direction."
    return Drawn("comparison", "Under shift against in distribution", caption, figure)


def _point(axes: Axes, method: Method, hue: str, marker: str) -> ErrorbarContainer:
    x, y = method.splits["id_test"], method.splits["ood_test"]
    return axes.errorbar(
        100 * x["accuracy"],
        100 * y["accuracy"],
        xerr=100 * x["stderr"],
        yerr=100 * y["stderr"],
        fmt=marker,
        color=hue,
        markersize=7,
        elinewidth=1.3,
    )


def _finish_shift(figure: Figure, axes: Axes, benchmark: str) -> None:
    published = PUBLISHED.get(benchmark, {})
    if published:
        xs, ys = zip(*published.values(), strict=True)
        axes.plot(xs, ys, "o", mfc="none", mec=MUTED, label=PUBLISHED_LABEL)
    axes.margins(0.12)
    axes.set_xlabel(f"{split_label('id_test')} accuracy, %")
    axes.set_ylabel(f"{split_label('ood_test')} accuracy, %")
    _legend(figure, axes)


def iterations_figure(run: Run, method: Method) -> Drawn | None:
    """Accuracy over the iterations of a fit, every split, with the selected iteration marked."""
    curve = method.fit.get("curve")
    if not curve or not curve.get("iterations"):
        return None
    label = str(curve.get("label") or "iteration")
    selected = (method.selected or {}).get("epoch" if label == "epoch" else "iterations")
    figure = _curve(curve["iterations"], curve["splits"], selected, label, run.metric)
    caption = _caption(run, curve["splits"], f"chosen {label}" if selected else "")
    return Drawn(f"iterations-{method.name}", f"{method.label}: over {label}s", caption, figure)


def ridge_figure(run: Run, method: Method) -> Drawn | None:
    """Accuracy over the ridge, every split, with the selected ridge marked."""
    curve = method.fit.get("ridge_curve") or _path_curve(method.fit.get("ridge_path"), run.metric)
    if not curve or len(curve["ridges"]) < 2:
        return None
    chosen = method.selected or {}
    inverse = "C" in chosen
    selected = 1.0 / chosen["C"] if inverse else chosen.get("ridge")
    label = "L2 strength 1/C" if inverse else str(curve.get("label") or "ridge")
    figure = _curve(curve["ridges"], curve["splits"], selected, label, run.metric)
    caption = _caption(run, curve["splits"], "chosen strength" if selected else "")
    title = f"{method.label}: over regularization"
    return Drawn(f"ridge-{method.name}", title, caption, figure)


def risk_figure(method: Method) -> Drawn | None:
    """The squared error that the spectrum predicts, and the one measured on every split."""
    curve = method.fit.get("ridge_curve") or {}
    predicted = {
        point["ridge"]: point["gcv"]
        for point in method.fit.get("ridge_path") or ()
        if point.get("gcv") is not None
    }
    if not curve.get("risks") or len(predicted) < 2:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = _new()
        for split, hue, dash, _ in _styled(curve["risks"]):
            risks = curve["risks"][split]
            axes.plot(curve["ridges"], risks, color=hue, linestyle=dash, label=split_label(split))
        ridges = sorted(predicted)
        values = [predicted[ridge] for ridge in ridges]
        axes.plot(ridges, values, color=INK, linewidth=1.1, label="predicted (GCV)")
        axes.set_xscale("log")
        axes.set_xlabel(str(curve.get("label") or "ridge"))
        axes.set_ylabel("mean squared error of the targets")
        _legend(figure, axes)
    caption = (
        "GCV reads the training kernel's spectrum and the training targets alone; it predicts the "
        "error in distribution (Wei, Hu & Steinhardt 2022)."
    )
    return Drawn(f"risk-{method.name}", f"{method.label}: predicted risk", caption, figure)


def columns_figure(run: Run) -> Drawn | None:
    """Accuracy over the number of kept parameters, a kernel and a ridge for each."""
    points = run.columns
    if len(points) < 2:
        return None
    values = {
        split: [point["splits"][split][run.metric] for point in points]
        for split in points[0]["splits"]
    }
    sizes = [point["size"] for point in points]
    figure = _curve(sizes, values, None, "kept parameters", run.metric)
    caption = f"Each kernel has the ridge that {run.selection_phrase} chose for it."
    return Drawn("columns", "Over the number of kept parameters", caption, figure)


def _curve(
    xs: Sequence[float],
    splits: Mapping[str, Sequence[float]],
    selected: float | None,
    label: str,
    metric: str,
) -> Figure:
    unit = 100.0 if metric in PERCENT else 1.0
    order = np.argsort(np.asarray(xs, dtype=float), kind="stable")
    x = np.asarray(xs, dtype=float)[order]
    chosen = None if selected is None else int(np.argmin(np.abs(x - float(selected))))
    with mpl.rc_context(STYLE):
        figure, axes = _new()
        if chosen is not None:
            axes.axvline(x[chosen], color=MUTED, linewidth=0.9)
        for split, hue, dash, marker in _styled(splits):
            y = unit * np.abs(np.asarray(splits[split], dtype=float)[order])
            axes.plot(x, y, color=hue, linestyle=dash, label=split_label(split))
            if chosen is not None:
                axes.plot(x[chosen], y[chosen], marker, color=hue, markersize=6.5)
        if label == "epoch":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        elif (x > 0).all():
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlabel(label)
        axes.set_ylabel(METRIC_LABELS.get(metric, metric))
        _legend(figure, axes)
    return figure


def _styled(splits: Mapping[str, Any]) -> list[tuple[str, str, Any, str]]:
    others = iter(OTHER_STYLE * (1 + len(splits) // len(OTHER_STYLE)))
    known = [(s, *SPLIT_STYLE[s]) for s in SPLIT_STYLE if s in splits]
    return known + [(s, *next(others)) for s in splits if s not in SPLIT_STYLE]


def _path_curve(path: Sequence[Mapping[str, Any]] | None, metric: str) -> dict[str, Any] | None:
    """The validation curve inside a ridge path, for fits without one over every split."""
    points = [p for p in path or () if (p.get("val") or {}).get(metric) is not None]
    if not points:
        return None
    values = [point["val"][metric] for point in points]
    return {"ridges": [point["ridge"] for point in points], "splits": {"val": values}}


def _caption(run: Run, splits: Mapping[str, Any], mark: str) -> str:
    if not mark:
        return ""
    afterwards = "; test curves came afterwards" if set(splits) - {run.selection} else ""
    return f"The line marks the {mark}, on {run.selection_phrase}{afterwards}."


def _new(extra: float = 0.0) -> tuple[Figure, Axes]:
    """An empty figure, ``extra`` inches higher where its legend is long."""
    figure = Figure(figsize=(WIDTH, HEIGHT + extra), layout="constrained")
    return figure, figure.add_subplot()


def _legend(figure: Figure, axes: Axes) -> None:
    """A legend above the axes: it never covers a curve."""
    handles, labels = axes.get_legend_handles_labels()
    # Error bars come after lines, whatever was drawn first; published points belong last.
    order = sorted(range(len(labels)), key=lambda i: labels[i] == PUBLISHED_LABEL)
    long = max(map(len, labels)) > 14 or len(labels) == 4
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside upper left",
        ncols=2 if long else 3,
        columnspacing=1.2,
        handletextpad=0.5,
    )
