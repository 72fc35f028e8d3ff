"""Whether confidence can be trusted: reliability diagrams, and calibration under shift."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.report.drawing import MUTED, STYLE, WIDTH, Drawn, styled
from pipeline.report.record import Method, Run, split_label

FEWEST_ROWS = 10
"""Bins with fewer rows are not drawn: their accuracy is noise."""
COLUMNS = 2
"""Panels beside each other: more would be too small on a phone."""


def reliability_figure(run: Run) -> Drawn | None:
    """Accuracy over confidence, a small panel a method and a line a test split.

    Many methods in one panel could not be told from each other.
    """
    found = run.comparisons.get("splits", {})
    splits = [s for s in run.splits if s != "val" and _calibrated(found, s)]
    methods = [m for m in run.methods if any(_bins(found, s, m) for s in splits)]
    if not methods:
        return None
    rows = -(-len(methods) // COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.8 + 1.75 * rows), layout="constrained")
        grid = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, method in zip(grid, methods, strict=False):
            axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
            for split, hue, dash, marker in styled(dict.fromkeys(splits)):
                if bins := _bins(found, split, method):
                    axes.plot(*_points(bins), marker, ls=dash, color=hue, ms=3.5, lw=1.3)
            axes.set_title(method.label, fontsize=8)
        for axes in grid[len(methods) :]:
            axes.set_axis_off()
        # The panel above an empty place has no neighbour below to carry its numbers.
        grid[len(methods) - COLUMNS].xaxis.set_tick_params(labelbottom=True)
        figure.supxlabel("confidence, %", fontsize=10, color=MUTED)
        figure.supylabel("accuracy, %", fontsize=10, color=MUTED)
        _legend(figure, splits)
    caption = (
        "Confidence is the largest of softmax(scores / T), T fitted on held-out rows; 15 bins, "
        f"those of fewer than {FEWEST_ROWS} rows left out. Below the diagonal: overconfident."
    )
    return Drawn("reliability", "Reliability diagrams", caption, figure)


def calibration_shift_figure(run: Run) -> Drawn | None:
    """Calibration error of every method on every test split, before and after the temperature."""
    methods = [m for m in run.methods if any("ece_raw" in facts for facts in m.splits.values())]
    splits = [split for split in run.splits if split != "val"]
    if not methods or not splits:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.5 + 0.36 * len(methods)), layout="constrained")
        axes = figure.subplots()
        drawn = styled(dict.fromkeys(splits))
        offsets = np.linspace(0.22, -0.22, len(drawn)) if len(drawn) > 1 else [0.0]
        for (split, hue, _, marker), offset in zip(drawn, offsets, strict=True):
            for place, method in enumerate(methods):
                facts = method.splits.get(split)
                if facts:
                    x, y = [100 * facts["ece"], 100 * facts["ece_raw"]], len(methods) - place
                    axes.plot(x, [y + offset] * 2, color=hue, linewidth=0.9, alpha=0.6)
                    axes.plot(x[1], y + offset, marker, mec=hue, mfc="none", markersize=5)
                    axes.plot(x[0], y + offset, marker, color=hue, markersize=5.5)
            axes.plot([], [], marker, color=hue, label=split_label(split))
        axes.set_yticks(range(len(methods), 0, -1), [method.label for method in methods])
        axes.set_xlim(left=0)
        axes.set_xlabel("expected calibration error, %")
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside upper left", ncols=2 if len(drawn) > 3 else 3, handletextpad=0.3)
    caption = (
        "Hollow: scores as they are (T = 1); filled: at the temperature fitted on held-out rows."
    )
    return Drawn("calibration", "Calibration under shift", caption, figure)


def _calibrated(found: dict, split: str) -> bool:
    return any("reliability" in facts for facts in found.get(split, {}).get("methods", {}).values())


def _bins(found: dict, split: str, method: Method) -> dict | None:
    return found[split]["methods"].get(method.name, {}).get("reliability")


def _points(bins: dict) -> tuple[list[float], list[float]]:
    """Confidence and accuracy of the bins that have enough rows, in percent."""
    kept = [i for i, count in enumerate(bins["counts"]) if count >= FEWEST_ROWS]
    return [100 * bins["confidence"][i] for i in kept], [100 * bins["accuracy"][i] for i in kept]


def _legend(figure: Figure, splits: list[str]) -> None:
    handles = [
        Line2D([], [], color=hue, marker=marker, ls=dash, ms=4.5, label=split_label(split))
        for split, hue, dash, marker in styled(dict.fromkeys(splits))
    ]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=2 if len(handles) > 3 else 3,
        columnspacing=1.2,
        handletextpad=0.5,
    )
