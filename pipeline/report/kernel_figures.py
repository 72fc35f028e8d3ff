"""The kernel itself: its spectrum with the effective dimension, and the (ridge × time) plane."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.drawing import BLUE, HEIGHT, MUTED, STYLE, VERMILLION, WIDTH, Drawn
from pipeline.report.record import Method, Run, split_label
from pipeline.report.results import METRIC_LABELS, PERCENT

COLOURS = "cividis"
"""Of the plane: of even lightness steps, and the same to the colour-blind (Nuñez et al. 2018)."""
RIDGE_LABEL = "ridge / mean(diag K)"


def spectrum_figure(run: Run) -> Drawn | None:
    """Eigenvalues by rank, and the effective dimension over the ridge."""
    found = run.spectrum
    if not found:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.7 * HEIGHT), layout="constrained")
        first, second = figure.subplots(2)
        eigenvalues = np.array(found["eigenvalues"])
        kept = eigenvalues > 0
        ranks = np.array(found["ranks"])[kept]
        first.loglog(ranks, eigenvalues[kept], color=BLUE, marker=".", markersize=3, linewidth=1.2)
        first.set_xlabel("rank")
        first.set_ylabel("eigenvalue of K")
        _dimension(second, found, _chosen_ridge(run))
    how = "all eigenvalues" if found["exact"] else "a Lanczos quadrature of the spectrum"
    caption = (
        f"n = {found['n']:,} training rows; from {how}. The effective dimension "
        "tr K(K + ridge·I)⁻¹ counts the directions fitted; the line marks the chosen ridge."
    )
    return Drawn("spectrum", "Spectrum of K and effective dimension", caption, figure)


def plane_figure(run: Run, method: Method) -> Drawn | None:
    """The leading metric over ridge and iteration, a panel a split, the chosen point marked."""
    planes = planes_of(run, method)
    if not planes or min(len(planes["ridges"]), len(planes["iterations"])) < 2:
        return None
    shown = [s for s in ("id_test", "ood_test") if s in planes["splits"]] or list(planes["splits"])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.85 * HEIGHT * len(shown)), layout="constrained")
        for axes, split in zip(
            figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True
        ):
            _plane(figure, axes, planes, split, run.metric)
            _mark(axes, method.selected or {})
    caption = (
        f"The star is the point chosen on {run.selection_phrase}; the planes of the test splits "
        "were computed after the choice. Lighter is better."
    )
    return Drawn(f"plane-{method.name}", f"{method.label}: ridge × time", caption, figure)


def _dimension(axes: Axes, found: dict[str, Any], ridge: float | None) -> None:
    values = np.array(found["effective_dimension"])
    spread = np.array(found["effective_dimension_stderr"])
    axes.plot(found["ridges"], values, color=VERMILLION)
    axes.fill_between(
        found["ridges"],
        np.maximum(values - 2 * spread, values / 10),
        values + 2 * spread,
        color=VERMILLION,
        alpha=0.2,
        linewidth=0,
    )
    if ridge is not None:
        axes.axvline(ridge, color=MUTED, linewidth=0.9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(RIDGE_LABEL)
    axes.set_ylabel("effective dimension")


def _chosen_ridge(run: Run) -> float | None:
    chosen = [m.selected.get("ridge") for m in run.methods if m.name == "entk" and m.selected]
    return chosen[0] if chosen else None


def planes_of(run: Run, method: Method) -> dict[str, Any] | None:
    """Scores over ridge and iteration, iterations varying fastest: every split's, or validation's.

    None where the machine was not chosen on a plane.
    """
    return method.fit.get("planes") or _validation_plane(run, method)


def _validation_plane(run: Run, method: Method) -> dict[str, Any] | None:
    """The plane of the selection split, which the fit itself holds."""
    plane = method.fit.get("plane")
    if not plane:
        return None
    values = [abs(value) for row in plane["values"] for value in row]
    axes = {name: plane[name] for name in ("ridges", "iterations")}
    return {**axes, "splits": {run.selection: values}}


def _plane(figure: Figure, axes: Axes, planes: dict[str, Any], split: str, metric: str) -> None:
    unit = 100.0 if metric in PERCENT else 1.0
    ridges, times = planes["ridges"], planes["iterations"]
    values = unit * np.abs(np.reshape(planes["splits"][split], (len(ridges), len(times))))
    if metric not in PERCENT:
        values = np.log10(values)
    # One picture instead of a thousand paths keeps the page small.
    x, y = _edges(np.maximum(times, 0.5)), _edges(ridges)
    # Lighter is better for errors too.
    colours = COLOURS if metric in PERCENT else f"{COLOURS}_r"
    drawn = axes.pcolormesh(x, y, values, cmap=colours, rasterized=True)
    label = METRIC_LABELS.get(metric, metric)
    figure.colorbar(drawn, ax=axes, label=label if metric in PERCENT else f"log₁₀ {label}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(False)
    axes.set_title(split_label(split))
    axes.set_xlabel("iteration")
    axes.set_ylabel(RIDGE_LABEL)


def _mark(axes: Axes, selected: dict[str, Any]) -> None:
    if selected.get("ridge") and selected.get("iterations"):
        axes.plot(
            selected["iterations"], selected["ridge"], "*", ms=12, mfc="white", mec="black", mew=0.9
        )


def _edges(centres: Sequence[float] | np.ndarray) -> np.ndarray:
    """Borders between positive points, halfway in logarithm."""
    logs = np.log(np.asarray(centres, dtype=float))
    middle = (logs[1:] + logs[:-1]) / 2
    ends = [2 * logs[0] - middle[0], 2 * logs[-1] - middle[-1]]
    return np.exp(np.concatenate([ends[:1], middle, ends[1:]]))
