"""How every figure looks: one small figure an idea, legible at phone width.

Hues are Okabe and Ito's and a brown darker than all of them, told apart by the colour-blind; marker
and dash repeat what the hue says, and go on where the hues begin again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID = "#1a1c1f", "#5d636b", "#d9dce0"
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BROWN = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#e69f00",
    "#cc79a7",
    "#56b4e9",
    "#5b3a1e",
)
HUES = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BROWN)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1, 1.4)), (0, (3, 1, 1, 1)))
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
"""What the legend calls points that are not of this run; they come last in it."""


@dataclass(frozen=True)
class Drawn:
    """A figure with the words around it."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Look:
    """How one of many is told from the others."""

    hue: str
    dash: Any
    marker: str


def look(number: int) -> Look:
    """The number-th look; the first twelve have markers of their own."""
    return Look(
        HUES[number % len(HUES)],
        DASHES[number // len(HUES) % len(DASHES)],
        MARKERS[number % len(MARKERS)],
    )


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look a name, in order: give all of a run's methods, and each looks alike everywhere."""
    return {name: look(number) for number, name in enumerate(names)}


def styled(splits: Mapping[str, Any]) -> list[tuple[str, str, Any, str]]:
    """(split, hue, dash, marker) of every split, the known ones first."""
    others = iter(OTHER_STYLE * (1 + len(splits) // len(OTHER_STYLE)))
    known = [(s, *SPLIT_STYLE[s]) for s in SPLIT_STYLE if s in splits]
    return known + [(s, *next(others)) for s in splits if s not in SPLIT_STYLE]


def new_figure(extra: float = 0.0) -> tuple[Figure, Axes]:
    """An empty figure, ``extra`` inches higher where its legend is long."""
    figure = Figure(figsize=(WIDTH, HEIGHT + extra), layout="constrained")
    return figure, figure.add_subplot()


def legend_above(figure: Figure, axes: Axes) -> None:
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
