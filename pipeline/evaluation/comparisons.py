"""Methods beside each other: intervals, paired differences, agreement, calibration, robustness.

Everything comes from predictions and from curves on disk and holds no timing, so equal predictions
give equal bytes. Temperatures are those of ``metrics.json``, fitted on the validation split.
"""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from pipeline import metrics
from pipeline.evaluation.predictions import Predictions, read_predictions, split_files
from pipeline.evaluation.share_outside import OutsideSpan, by_share_outside
from pipeline.metrics.agreement import agreement, error_consistency
from pipeline.metrics.bootstrap import LEVEL, RESAMPLES, mean_intervals
from pipeline.metrics.groups import group_scores
from pipeline.metrics.robustness import probit_line

Points = list[tuple[float, float]]
"""ID and OOD accuracy of models, as shares."""


def compare_methods(
    predictions: Path,
    scored: Mapping[str, Any],
    curves: Mapping[str, Mapping[str, Any]],
    outside_span: OutsideSpan | None = None,
) -> dict[str, Any]:
    """The content of ``comparisons.json``.

    ``scored`` is the content of ``metrics.json``; ``curves`` holds, by method, the accuracy of
    every split over the ridge, from which the probit line has most of its points;
    ``outside_span``, where it was measured, is how far the rows of the test splits lie outside.
    """
    done = {name: facts for name, facts in scored["methods"].items() if facts["splits"]}
    found: dict[str, dict[str, Predictions]] = {}
    for method in done:
        for path in split_files(predictions / method):
            found.setdefault(path.stem, {})[method] = read_predictions(path)
    temperatures = {name: facts.get("temperature") for name, facts in done.items()}
    losses = {
        split: {name: _sample_values(one, temperatures[name]) for name, one in by_method.items()}
        for split, by_method in found.items()
    }
    facts: dict[str, Any] = {
        "level": LEVEL,
        "resamples": RESAMPLES,
        "splits": {
            split: _on_split(by_method, losses[split], temperatures)
            for split, by_method in found.items()
        },
        "effective_robustness": _robustness(done, curves),
    }
    if outside_span is not None:
        facts["outside_span"] = by_share_outside(outside_span, losses)
    return facts


def _on_split(
    by_method: Mapping[str, Predictions],
    losses: Mapping[str, Mapping[str, ndarray]],
    temperatures: Mapping[str, float | None],
) -> dict[str, Any]:
    names = list(by_method)
    metric = next(iter(losses[names[0]]))
    result: dict[str, Any] = {"methods": {name: {} for name in names}}
    result |= _intervals(losses, metric)
    if metric == "mse":
        return result
    for name, found in by_method.items():
        result["methods"][name] = _calibration(found, temperatures[name] or 1.0)
    classes = np.stack([found.scores.argmax(axis=1) for found in by_method.values()])
    right = np.stack([losses[name]["accuracy"] for name in names]) == 1.0
    result["agreement"] = {
        "methods": names,
        "same_class": agreement(classes).tolist(),
        "error_consistency": error_consistency(right),
    }
    return result


def _sample_values(found: Predictions, temperature: float | None) -> dict[str, ndarray]:
    """What a split's metrics are means of, one value a row; the leading metric first."""
    if found.is_regression:
        return {"mse": np.mean((found.scores - found.labels) ** 2, axis=1)}
    assert temperature is not None, "a scored classification has a temperature"
    return {
        "accuracy": (found.scores.argmax(axis=1) == found.labels).astype(float),
        "nll": metrics.sample_nll(found.scores, found.labels, temperature),
        "brier": metrics.sample_brier(found.scores, found.labels, temperature),
    }


def _intervals(losses: Mapping[str, Mapping[str, ndarray]], metric: str) -> dict[str, Any]:
    """Intervals of every method's means and of the differences between two methods' rows."""
    pairs = list(combinations(losses, 2))
    keys = [(name, key) for name, values in losses.items() for key in values]
    rows = [losses[name][key] for name, key in keys]
    differences = [losses[a][metric] - losses[b][metric] for a, b in pairs]
    found = mean_intervals(np.stack([*rows, *differences])).tolist()
    intervals: dict[str, dict[str, list[float]]] = {name: {} for name in losses}
    for (name, key), interval in zip(keys, found[: len(keys)], strict=True):
        intervals[name][key] = interval
    return {
        "intervals": intervals,
        "differences": [
            {"of": a, "minus": b, "metric": metric, "mean": float(row.mean()), "interval": interval}
            for (a, b), row, interval in zip(pairs, differences, found[len(keys) :], strict=True)
        ],
    }


def _calibration(found: Predictions, temperature: float) -> dict[str, Any]:
    facts = {
        "reliability": asdict(metrics.reliability(found.scores, found.labels, temperature)),
        "reliability_raw": asdict(metrics.reliability(found.scores, found.labels)),
    }
    if found.groups is None:
        return facts
    by_group = group_scores(found.scores, found.labels, found.groups)
    return {**facts, "groups": {name: asdict(score) for name, score in by_group.items()}}


def _robustness(
    done: Mapping[str, Mapping[str, Any]], curves: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Per OOD split: the line over all methods and ridges, and each method's height above it."""
    shifts = dict.fromkeys(
        split for facts in done.values() for split in facts["splits"] if split.startswith("ood")
    )
    result = {}
    for shift in shifts:
        points = {
            name: (facts["splits"]["id_test"]["accuracy"], facts["splits"][shift]["accuracy"])
            for name, facts in done.items()
            if {"id_test", shift} <= set(facts["splits"])
            and "accuracy" in facts["splits"]["id_test"]
        }
        along = {name: _points(curve, shift) for name, curve in curves.items() if name in points}
        everything = [*points.values(), *(pair for pairs in along.values() for pair in pairs)]
        line = probit_line(*zip(*everything, strict=True)) if everything else None
        if line is not None:
            heights = {name: line.effective_robustness(*pair) for name, pair in points.items()}
            result[shift] = {"line": asdict(line), "methods": heights, "ridges": along}
    return result


def _points(curve: Mapping[str, Any], shift: str) -> Points:
    splits = curve["splits"]
    if not {"id_test", shift} <= set(splits):
        return []
    return [*zip(splits["id_test"], splits[shift], strict=True)]
