"""From predictions on disk to the content of ``metrics.json``, for every method alike.

What remains to be fitted (the temperature, or a regression's variance) is fitted on the
validation split; every other split is only scored. The result holds no timing, so that runs with
equal predictions give equal bytes.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import metrics
from pipeline.artefact import read_json
from pipeline.evaluation.predictions import Predictions, rank, read_predictions, split_files
from pipeline.types import InputError

VALIDATION_SPLIT = "val"

METHOD_ORDER = (
    "entk",
    "entk_early_stopping",
    "entk_gp",
    "linear_probe",
    "linear_probe_ridge",
    "linear_probe_augmented",
    "finetune",
    "lp_ft",
    "scratch",
)
"""The order of the table; methods not named here follow alphabetically."""


def evaluate(
    predictions: Path,
    fits: Path,
    *,
    benchmark: str,
    selection: str = VALIDATION_SPLIT,
    methods: Collection[str] | None = None,
) -> dict[str, Any]:
    """The content of ``metrics.json``, from the folders of predictions and of fits.

    ``selection`` names the split on which hyperparameters were chosen; it is recorded, not used,
    except that the temperature is fitted on it when there is no validation split. A method with a
    fit and no predictions is listed as missing, with the reason its ``fit.json`` gives. ``methods``
    restricts the result to these, where folders of an earlier config may lie about.
    """
    results: dict[str, Any] = {}
    reference: dict[str, tuple[str, Predictions]] = {}
    regression = False
    for method in _methods(predictions, fits):
        if methods is not None and method not in methods:
            continue
        fit = _fit(fits / method / "fit.json")
        splits = {path.stem: read_predictions(path) for path in split_files(predictions / method)}
        if not splits:
            reason = fit.get("reason") or fit.get("status") or "it has no predictions yet"
            results[method] = {"selected": fit.get("selected"), "splits": {}, "missing": reason}
            continue
        for split, found in splits.items():
            _refuse_other_rows(split, method, found, *reference.setdefault(split, (method, found)))
            regression = found.is_regression
        results[method] = {
            "selected": fit.get("selected"),
            **_scored(method, splits, _calibration_split(splits, selection, method)),
        }
    if not results:
        raise InputError(f"no predictions in {predictions}. Run the stages that make them first.")
    metric = "mse" if regression else "accuracy"
    return {
        "benchmark": benchmark,
        "selection": {"split": selection, "metric": metric},
        "methods": results,
    }


def _scored(
    method: str, splits: Mapping[str, Predictions], calibration_split: str
) -> dict[str, Any]:
    """What calibrates one method (temperature or variance) and its metrics on every split."""
    score = _scored_regression if splits[calibration_split].is_regression else _scored_classes
    try:
        return {"calibration_split": calibration_split, **score(splits, calibration_split)}
    except InputError as error:
        raise InputError(f"the predictions of {method} cannot be scored: {error}") from None


def _scored_classes(splits: Mapping[str, Predictions], calibration_split: str) -> dict[str, Any]:
    held_out = splits[calibration_split]
    temperature = metrics.fit_temperature(held_out.scores, held_out.labels)
    scored = {
        split: metrics.classification_metrics(found.scores, found.labels, temperature, found.groups)
        for split, found in splits.items()
    }
    return {"temperature": temperature, "splits": scored}


def _scored_regression(splits: Mapping[str, Predictions], calibration_split: str) -> dict[str, Any]:
    """Metrics under each prediction's own variance, or one fitted where any lacks it."""
    held_out = splits[calibration_split]
    own = {split: found.variance for split, found in splits.items() if found.variance is not None}
    fitted = None
    if len(own) < len(splits):
        fitted = metrics.fit_variance(held_out.scores, held_out.labels)
        own = dict.fromkeys(splits, fitted)
    scored = {
        split: metrics.regression_metrics(found.scores, found.labels, own[split])
        for split, found in splits.items()
    }
    return {"variance": None if fitted is None else fitted.tolist(), "splits": scored}


def _calibration_split(splits: Mapping[str, Predictions], selection: str, method: str) -> str:
    for split in (VALIDATION_SPLIT, selection):
        if split in splits:
            return split
    raise InputError(
        f"{method} has no predictions on {VALIDATION_SPLIT!r} or {selection!r}, one of which its "
        f"temperature is fitted on; found {', '.join(splits)}."
    )


def _refuse_other_rows(
    split: str, method: str, found: Predictions, first_method: str, first: Predictions
) -> None:
    """Methods are compared row by row, so all must have been asked about the same rows."""
    if not (np.array_equal(found.ids, first.ids) and np.array_equal(found.labels, first.labels)):
        raise InputError(
            f"{method} and {first_method} were predicted on different rows of {split} "
            f"({len(found.ids)} and {len(first.ids)} samples, or another order or labels). "
            "Delete the older predictions and run the command again."
        )


def _methods(predictions: Path, fits: Path) -> list[str]:
    folders = [folder for root in (predictions, fits) if root.is_dir() for folder in root.iterdir()]
    names = {f.name for f in folders if f.is_dir() and not f.name.endswith(".partial")}
    return sorted(names, key=lambda name: (rank(METHOD_ORDER, name), name))


def _fit(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}
