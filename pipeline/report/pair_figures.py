"""Methods two by two: paired differences with their intervals, and how far they agree."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from pipeline.report.drawing import INK, MUTED, SPLIT_STYLE, STYLE, WIDTH, Drawn
from pipeline.report.record import Method, Run, split_label
from pipeline.report.words import leading_method

SHOWN = ("id_test", "ood_test")

COLOURS = "cividis"


def differences_figure(run: Run) -> Drawn | None:
    """The kernel's lead over every other method, with paired bootstrap intervals."""
    ours = leading_method(run)
    others = [m for m in run.methods if ours and m is not ours and m.splits]
    rows = [
        (m, split, [100 * share for share in found])
        for m in others
        for split in SHOWN
        if ours and (found := run.lead(ours.name, m.name, split))
    ]
    if not rows or run.metric != "accuracy":
        return None
    places = {method.name: len(others) - i for i, method in enumerate(others)}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.4 + 0.4 * len(others)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.9)
        for method, split, (mean, low, high) in rows:
            hue, _, marker = SPLIT_STYLE[split]
            y = places[method.name] + (0.13 if split == "id_test" else -0.13)
            axes.plot([low, high], [y, y], color=hue, linewidth=1.6)
            axes.plot(mean, y, marker, color=hue, markersize=6)
        for split in SHOWN:
            hue, _, marker = SPLIT_STYLE[split]
            axes.plot([], [], marker, color=hue, label=split_label(split))
        axes.set_yticks(list(places.values()), [method.label for method in others])
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{ours.label if ours else ''} minus the method, points")
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.3)
    level = 100 * run.comparisons["level"]
    caption = (
        f"{level:.0f} % intervals of the paired bootstrap ({run.comparisons['resamples']:,} "
        "resamples of the test rows); right of zero the kernel is ahead."
    )
    return Drawn("differences", "Paired differences in accuracy", caption, figure)


def agreement_figure(run: Run, split: str = "ood_test") -> Drawn | None:
    """Share of rows on which two methods predict the same class, with the consistency of errors."""
    found = run.comparisons.get("splits", {}).get(split, {}).get("agreement")
    if not found or len(found["methods"]) < 2:
        return None
    names = [method for method in run.methods if method.name in found["methods"]]
    order = [found["methods"].index(method.name) for method in names]
    share = 100 * np.array(found["same_class"])[np.ix_(order, order)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.5 + 0.45 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.imshow(share, cmap=COLOURS, vmin=0, vmax=100, aspect="auto", interpolation="nearest")
        for i, row in enumerate(order):
            for j, column in enumerate(order):
                kappa = found["error_consistency"][row][column]
                text = f"{share[i, j]:.0f}" + ("" if kappa is None else f"\nκ {kappa:.2f}")
                shade = "#000000" if share[i, j] > 55 else "#ffffff"
                axes.text(j, i, text, ha="center", va="center", fontsize=8.5, color=shade)
        _name_axes(axes, names)
    caption = (
        f"{split_label(split)}: share of rows with the same predicted class, %; κ is the "
        "consistency of their mistakes: 0 independent, 1 on the same rows (Geirhos et al. 2020)."
    )
    return Drawn("agreement", "Agreement between methods", caption, figure)


def _name_axes(axes: Any, methods: list[Method]) -> None:
    numbers = [str(i + 1) for i in range(len(methods))]
    axes.set_xticks(range(len(methods)), numbers)
    axes.set_yticks(
        range(len(methods)), [f"{method.label}  {i + 1}" for i, method in enumerate(methods)]
    )
    axes.tick_params(length=0, labelcolor=MUTED)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
