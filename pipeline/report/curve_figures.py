"""Accuracy along a fit's paths: over iterations, over the ridge, over kept parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.report.drawing import INK, MUTED, STYLE, Drawn, legend_above, new_figure, styled
from pipeline.report.kernel_figures import RIDGE_LABEL, planes_of
from pipeline.report.record import Method, Run, split_label
from pipeline.report.results import METRIC_LABELS, PERCENT


def iterations_figure(run: Run, method: Method) -> Drawn | None:
    """Accuracy over the iterations of a fit, every split, with the selected iteration marked."""
    curve = method.fit.get("curve")
    if not curve or not curve.get("iterations"):
        return None
    label = str(curve.get("label") or "iteration")
    selected = (method.selected or {}).get("epoch" if label == "epoch" else "iterations")
    figure = _curve(curve["iterations"], curve["splits"], selected, label, run.metric)
    rule = _best_rule(run, "epoch") if label == "epoch" else _kernel_rule(run, method)
    caption = _caption(run, curve["splits"], f"chosen {label}" if selected else "", rule)
    return Drawn(f"iterations-{method.name}", f"{method.label}: over {label}s", caption, figure)


def ridge_figure(run: Run, method: Method) -> Drawn | None:
    """Accuracy over the ridge, every split, with the selected ridge marked."""
    chosen = method.selected or {}
    curve = (
        method.fit.get("ridge_curve")
        or _at_stopping_time(run, method)
        or _path_curve(method.fit.get("ridge_path"), run.metric)
    )
    if not curve or len(curve["ridges"]) < 2:
        return None
    inverse = "C" in chosen
    selected = 1.0 / chosen["C"] if inverse else chosen.get("ridge")
    if chosen.get("stopping") == "early" and "stopped" not in curve:
        # The path holds converged fits: the stopped machine does not lie on it.
        selected = None
    label = "L2 strength 1/C" if inverse else str(curve.get("label") or "ridge")
    figure = _curve(curve["ridges"], curve["splits"], selected, label, run.metric)
    caption = _caption(
        run, curve["splits"], "chosen strength" if selected else "", _ridge_rule(run, method)
    )
    if "stopped" in curve:
        caption = f"Stopped at iteration {curve['stopped']:,}, as chosen. {caption}"
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
        figure, axes = new_figure()
        ridges = sorted(predicted)
        values = [predicted[ridge] for ridge in ridges]
        # Wide, pale and below: it runs along the ID curve and must not cover it.
        axes.plot(
            ridges, values, color=INK, linewidth=5, alpha=0.3, zorder=1.5, label="predicted (GCV)"
        )
        for split, hue, dash, _ in styled(curve["risks"]):
            risks = curve["risks"][split]
            axes.plot(curve["ridges"], risks, color=hue, linestyle=dash, label=split_label(split))
        axes.set_xscale("log")
        axes.set_xlabel(str(curve.get("label") or "ridge"))
        axes.set_ylabel("mean squared error")
        legend_above(figure, axes)
    caption = (
        "Error of the targets. GCV reads the training kernel's spectrum and the training targets "
        "alone; it predicts the error in distribution (Wei, Hu & Steinhardt 2022)."
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
    figure = _curve(sizes, values, None, "kept parameters", run.metric, points=True)
    caption = f"Each kernel has the ridge that {run.selection_phrase} chose for it."
    return Drawn("columns", "Over the number of kept parameters", caption, figure)


def _curve(
    xs: Sequence[float],
    splits: Mapping[str, Sequence[float]],
    selected: float | None,
    label: str,
    metric: str,
    *,
    points: bool = False,
) -> Figure:
    """Every split's curve; ``points`` are marked where each is a fit of its own."""
    unit = 100.0 if metric in PERCENT else 1.0
    order = np.argsort(np.asarray(xs, dtype=float), kind="stable")
    x = np.asarray(xs, dtype=float)[order]
    chosen = None if selected is None else int(np.argmin(np.abs(x - float(selected))))
    with mpl.rc_context(STYLE):
        figure, axes = new_figure()
        if chosen is not None:
            axes.axvline(x[chosen], color=MUTED, linewidth=0.9)
        for split, hue, dash, marker in styled(splits):
            y = unit * np.abs(np.asarray(splits[split], dtype=float)[order])
            axes.plot(
                x,
                y,
                marker=marker if points else "",
                ls=dash,
                color=hue,
                ms=5,
                label=split_label(split),
            )
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
        legend_above(figure, axes)
    return figure


def _path_curve(path: Sequence[Mapping[str, Any]] | None, metric: str) -> dict[str, Any] | None:
    """The validation curve inside a ridge path, for fits without one over every split."""
    points = [p for p in path or () if (p.get("val") or {}).get(metric) is not None]
    if not points:
        return None
    values = [point["val"][metric] for point in points]
    return {"ridges": [point["ridge"] for point in points], "splits": {"val": values}}


def _at_stopping_time(run: Run, method: Method) -> dict[str, Any] | None:
    """The column of the (ridge × time) planes at the stopping time that was chosen."""
    planes, stopped = planes_of(run, method), (method.selected or {}).get("iterations")
    if not planes or stopped not in planes["iterations"]:
        return None
    place, times = planes["iterations"].index(stopped), len(planes["iterations"])
    splits = {split: values[place::times] for split, values in planes["splits"].items()}
    return {
        "ridges": planes["ridges"], "splits": splits, "label": RIDGE_LABEL, "stopped": stopped,
    }  # fmt: skip


def _ridge_rule(run: Run, method: Method) -> str:
    """How the strength of regularization was chosen, in words; nothing where it is not known."""
    if method.name.startswith("linear_probe"):
        return _best_rule(run, "strength") + ", of equals the strongest"
    return _kernel_rule(run, method)


def _best_rule(run: Run, what: str) -> str:
    return f"the {what} that scored best there"


def _kernel_rule(run: Run, method: Method) -> str:
    """The rule of one standard error as the kernel machines apply it."""
    stopping = (method.selected or {}).get("stopping")
    if not (method.fit.get("ridge_path") or method.fit.get("plane")):
        return ""
    within = "within one standard error of the best (that of their difference, row by row)"
    if stopping == "converged":
        return f"the largest ridge {within}"
    if stopping == "early" and method.fit.get("plane"):
        return (
            f"of all pairs of ridge and iteration {within}, the one of the largest ridge, then of "
            "the fewest iterations"
        )
    return ""


def _caption(run: Run, splits: Mapping[str, Any], mark: str, rule: str) -> str:
    if not mark:
        return ""
    chosen = f"The line marks the {mark}, on {run.selection_phrase}"
    chosen += f": {rule}." if rule else "."
    afterwards = " Test curves came afterwards." if set(splits) - {run.selection} else ""
    return chosen + afterwards
