"""Plots as plain values: what a study measured, drawn from its JSON in the report's style."""

from dataclasses import dataclass, field
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter

from pipeline.report.drawing import GRID, HEIGHT, MUTED, STYLE, WIDTH, Drawn, look

NAME_INCHES = 0.36
"""Height of a named row, two lines of small print."""
BAND = 0.22
"""Opacity of a band."""
MARKED = 12
"""Points of a line that get markers, at most."""
READABLE = (1e-4, 1e5)
"""Numbers that are written out."""


@dataclass(frozen=True)
class Series:
    """One line, points, or a band of a panel."""

    label: str
    x: list[float]
    y: list[float]
    error: list[float] | None = None
    """One standard error of each y."""
    style: Literal["line", "points", "path", "band"] = "line"
    """A path has its start and its end marked; a band is the area that x and y go round."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    xlabel: str
    ylabel: str
    series: list[Series]
    xlog: bool = False
    ylog: bool = False
    title: str = ""
    frame: list[tuple[float, float]] = field(default_factory=list)
    """Corners of an outline that replaces the axes: the triangle of a simplex."""
    names: list[str] = field(default_factory=list)
    """Of what stands at y = 1, 2, …, from the top; they replace the numbers."""
    columns: list[str] = field(default_factory=list)
    """Of what stands at x = 1, 2, …; they replace the numbers."""


@dataclass(frozen=True)
class Plot:
    """A figure of one or two panels with the words around it."""

    name: str
    title: str
    caption: str
    panels: list[Panel]

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> "Plot":
        """The plot that ``dataclasses.asdict`` and JSON made these values from."""
        panels = [
            Panel(**{**panel, "series": [Series(**line) for line in panel["series"]]})
            for panel in values["panels"]
        ]
        return cls(**{**values, "panels": panels})


def draw(plot: Plot) -> Drawn:
    """The figure: panels below each other, so that it stays legible at phone width."""
    inches = sum(max(HEIGHT, NAME_INCHES * len(panel.names)) for panel in plot.panels)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, inches + _legend_inches(plot)), layout="constrained")
        axes = figure.subplots(len(plot.panels), squeeze=False)[:, 0]
        for place, panel in zip(axes, plot.panels, strict=True):
            _draw_panel(place, panel, _labels(plot))
        _legend(figure, axes[0], plot)
    return Drawn(plot.name, plot.title, plot.caption, figure)


def _labels(plot: Plot) -> list[str]:
    return list(dict.fromkeys(line.label for panel in plot.panels for line in panel.series))


def _legend_inches(plot: Plot) -> float:
    return 0.12 * max(0, len([label for label in _labels(plot) if label]) - 3)


def _draw_panel(axes: Axes, panel: Panel, labels: list[str]) -> None:
    for line in panel.series:
        _draw_series(axes, line, labels.index(line.label))
    axes.set_xscale("log" if panel.xlog else "linear")
    axes.set_yscale("log" if panel.ylog else "linear")
    _plain_numbers(axes, panel)
    axes.set_xlabel(panel.xlabel)
    axes.set_ylabel(panel.ylabel)
    axes.set_title(panel.title)
    if panel.names:
        axes.set_yticks(range(1, len(panel.names) + 1), panel.names, fontsize=7.5)
        axes.set_ylim(len(panel.names) + 0.6, 0.4)
    if panel.columns:
        axes.set_xticks(range(1, len(panel.columns) + 1), panel.columns)
        axes.set_xlim(0.5, len(panel.columns) + 0.5)
    if panel.frame:
        xs, ys = zip(*panel.frame, panel.frame[0], strict=True)
        axes.plot(xs, ys, color=GRID, linewidth=1.2, zorder=0)
        axes.set_aspect("equal")
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)


def _plain_numbers(axes: Axes, panel: Panel) -> None:
    """0.02 instead of 2 × 10⁻² where a log axis stays within readable numbers."""
    for axis, logged in ((axes.xaxis, panel.xlog), (axes.yaxis, panel.ylog)):
        low, high = axis.get_view_interval()
        if logged and low > READABLE[0] and high < READABLE[1]:
            axis.set_major_formatter(_WrittenOut())
            axis.set_minor_formatter(_WrittenOut(minor_thresholds=(1.5, 0.5)))


class _WrittenOut(LogFormatter):
    """Labels where matplotlib would have some, as plain decimals."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _draw_series(axes: Axes, line: Series, number: int) -> None:
    own = look(number)
    hue, dash, marker = own.hue, own.dash, own.marker
    if line.style == "band":
        axes.fill(line.x, line.y, color=MUTED, alpha=BAND, linewidth=0)
    elif line.style == "points":
        axes.plot(line.x, line.y, marker, color=hue, markersize=4.5, alpha=0.8)
    elif line.style == "path":
        axes.plot(line.x, line.y, color=hue, linewidth=1.2)
        axes.plot(line.x[:1], line.y[:1], "o", mfc="none", mec=hue, markersize=5)
        axes.plot(line.x[-1:], line.y[-1:], marker, color=hue, markersize=6)
    else:
        size = 4.5 if len(line.x) <= MARKED else 0
        axes.errorbar(
            line.x, line.y, yerr=line.error, color=hue, linestyle=dash, marker=marker,
            markersize=size, elinewidth=1.0,
        )  # fmt: skip


def _legend(figure: Figure, axes: Axes, plot: Plot) -> None:
    labels = _labels(plot)
    named = [label for label in labels if label]
    if len(named) < 2:
        return
    lines = [line for panel in plot.panels for line in panel.series]
    shown = {line.label: line for line in reversed(lines)}
    handles = [_handle(shown[label], labels.index(label)) for label in named]
    long = max(map(len, named)) > 14
    figure.legend(
        handles, named, loc="outside upper left", ncols=2 if long else 3,
        columnspacing=1.2, handletextpad=0.5, labelcolor=MUTED,
    )  # fmt: skip


def _handle(line: Series, number: int) -> Artist:
    """How a series looks, in small."""
    if line.style == "band":
        return Patch(color=MUTED, alpha=BAND, linewidth=0)
    own = look(number)
    dash: Any = "" if line.style == "points" else own.dash
    marker = "" if line.style == "line" and len(line.x) > MARKED else own.marker
    return Line2D([], [], color=own.hue, marker=marker, linestyle=dash, markersize=5)
