"""Whether confidence can be trusted: reliability diagrams, and calibration under shift."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.report.drawing import (
    HEIGHT,
    HUES,
    MARKERS,
    MUTED,
    STYLE,
    WIDTH,
    Drawn,
    styled,
)
from pipeline.report.record import Run, split_label

FEWEST_ROWS = 10
"""Bins with fewer rows are not drawn: their accuracy is noise."""


def reliability_figure(run: Run) -> Drawn | None:
    """Accuracy over confidence, a panel a test split and a line a method."""
    found = run.comparisons.get("splits", {})
    shown = [s for s in ("id_test", "ood_test") if _calibrated(found, s)]
    names = [method for method in run.methods if method.splits]
    if not shown or not names:
        return None
    with mpl.rc_context(STYLE):
        extra = 0.1 * max(0, len(names) - 3)
        figure = Figure(
            figsize=(WIDTH, 0.9 * HEIGHT * len(shown) + 0.3 + extra), layout="constrained"
        )
        for axes, split in zip(
            figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True
        ):
            axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
            for index, method in enumerate(names):
                bins = found[split]["methods"].get(method.name, {}).get("reliability")
                if bins:
                    _line(axes, bins, index)
            axes.set_title(split_label(split))
            axes.set_xlabel("confidence, %")
            axes.set_ylabel("accuracy, %")
        figure.legend(
            handles=[_handle(index, method.label) for index, method in enumerate(names)],
            loc="outside upper left",
            ncols=2,
            columnspacing=1.2,
            handletextpad=0.5,
        )
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


def _line(axes: Axes, bins: dict, index: int) -> None:
    kept = [i for i, count in enumerate(bins["counts"]) if count >= FEWEST_ROWS]
    x = [100 * bins["confidence"][i] for i in kept]
    y = [100 * bins["accuracy"][i] for i in kept]
    hue, marker = HUES[index % len(HUES)], MARKERS[index % len(MARKERS)]
    axes.plot(x, y, marker=marker, color=hue, markersize=4, linewidth=1.3)


def _handle(index: int, label: str) -> Line2D:
    hue, marker = HUES[index % len(HUES)], MARKERS[index % len(MARKERS)]
    return Line2D([], [], color=hue, marker=marker, markersize=4.5, linewidth=1.3, label=label)
