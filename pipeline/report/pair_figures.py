"""Methods two by two: paired differences with their intervals, and how far they agree."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.report.drawing import INK, MUTED, STYLE, WIDTH, Drawn, styled
from pipeline.report.record import Method, Run, split_label
from pipeline.report.words import leading_method

COLOURS = "cividis"
NAMED = 6
"""Methods at most whose names stand beside their rows; more need the width for their cells."""
NUMBERED = 14
"""Methods at most whose cells have room for a number."""


def differences_figure(run: Run) -> Drawn | None:
    """The kernel's lead over every other method, with paired bootstrap intervals."""
    ours = leading_method(run)
    others = [m for m in run.methods if ours and m is not ours and m.splits]
    splits = [split for split in run.splits if split != "val"]
    leads = {
        (m.name, split): [100 * share for share in found]
        for m in others
        for split in splits
        if ours and (found := run.lead(ours.name, m.name, split))
    }
    if ours is None or not leads or run.metric != "accuracy":
        return None
    looks = styled(dict.fromkeys(split for _, split in leads))
    height = 1.4 + (0.2 + 0.11 * len(looks)) * len(others)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.9)
        for place, (split, hue, _, marker) in enumerate(looks):
            offset = 0.6 * ((place + 0.5) / len(looks) - 0.5)
            for row, method in enumerate(others):
                if lead := leads.get((method.name, split)):
                    mean, low, high = lead
                    axes.plot([low, high], [row + offset] * 2, color=hue, linewidth=1.6)
                    axes.plot(mean, row + offset, marker, color=hue, markersize=5.5)
            axes.plot([], [], marker, color=hue, label=split_label(split))
        axes.set_yticks(range(len(others)), [method.label for method in others])
        axes.set_ylim(len(others) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        # The whole figure's width: beside long names the axes are narrower than these words.
        figure.supxlabel(f"{ours.label} minus the method, points", fontsize=10, color=MUTED)
        figure.legend(loc="outside upper left", ncols=2 if len(looks) > 3 else 3, handletextpad=0.3)
    level = 100 * run.comparisons["level"]
    caption = (
        f"{level:.0f} % intervals of the paired bootstrap ({run.comparisons['resamples']:,} "
        "resamples of the test rows); right of zero the kernel is ahead."
    )
    return Drawn("differences", "Paired differences in accuracy", caption, figure)


def agreement_figure(run: Run, split: str = "ood_test") -> Drawn | None:
    """Share of rows on which two methods predict the same class, and the consistency of errors.

    Each pair has two cells, so that a cell holds one number and stays legible for many methods.
    """
    found = run.comparisons.get("splits", {}).get(split, {}).get("agreement")
    if not found or len(found["methods"]) < 2:
        return None
    names = [method for method in run.methods if method.name in found["methods"]]
    order = np.ix_(*[[found["methods"].index(method.name) for method in names]] * 2)
    share = np.array(found["same_class"], dtype=float)[order]
    kappa = np.array(found["error_consistency"], dtype=float)[order]
    beside = len(names) <= NAMED
    # The key above takes a line for each two methods.
    height = 0.6 + 0.4 * len(names) if beside else 0.6 + 0.45 * len(names)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        values = np.where(_below(len(names)), share, kappa)
        np.fill_diagonal(values, np.nan)
        shown = axes.imshow(
            values, cmap=COLOURS, vmin=0, vmax=1, aspect="auto", interpolation="nearest"
        )
        if len(names) <= NUMBERED:
            _write_cells(axes, values)
        else:
            figure.colorbar(shown, ax=axes, location="bottom", aspect=40)
        _name_axes(figure, axes, names, beside=beside)
    caption = (
        f"{split_label(split)}. Below the diagonal: share of rows with the same predicted class, "
        "%. Above it: κ, the consistency of their mistakes: 0 independent, 1 on the same rows "
        "(Geirhos et al. 2020). The lighter, the more alike."
    )
    return Drawn("agreement", "Agreement between methods", caption, figure)


def _below(n: int) -> np.ndarray:
    """Whether a cell lies below the diagonal."""
    return np.tri(n, k=-1, dtype=bool)


def _write_cells(axes: Axes, values: np.ndarray) -> None:
    """Percent below the diagonal, two decimals above it; nothing where there is no number."""
    below = _below(len(values))
    for i, j in zip(*np.nonzero(~np.isnan(values)), strict=True):
        text = f"{100 * values[i, j]:.0f}" if below[i, j] else f"{values[i, j]:.2f}"
        shade = "#000000" if values[i, j] > 0.55 else "#ffffff"
        axes.text(j, i, text, ha="center", va="center", fontsize=8.5, color=shade)


def _name_axes(figure: Figure, axes: Axes, methods: list[Method], *, beside: bool) -> None:
    """Numbers along both axes; the names beside the rows, or as a key above if they are many."""
    numbers = [str(i + 1) for i in range(len(methods))]
    named = [f"{method.label}  {i}" for i, method in zip(numbers, methods, strict=True)]
    axes.set_xticks(range(len(methods)), numbers)
    axes.set_yticks(range(len(methods)), named if beside else numbers)
    axes.tick_params(length=0, labelcolor=MUTED)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if not beside:
        handles = [Line2D([], [], linestyle="") for _ in methods]
        key = [f"{i}  {method.label}" for i, method in zip(numbers, methods, strict=True)]
        figure.legend(
            handles, key, loc="outside upper left", ncols=2, handlelength=0, handletextpad=0,
            labelcolor=MUTED,
        )  # fmt: skip
