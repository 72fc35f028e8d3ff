"""The one format of predictions: ``<method>/<split>.npz``, whichever method made them.

| array | |
|---|---|
| ``scores`` | float64 (n, k) |
| ``labels`` | int64 (n,), or float64 (n, k) of a regression |
| ``ids`` | str (n,) |
| ``variance`` | float64 (n, k), of a regression that has a predictive variance |
| ``groups`` | str (n,), the domain of each row, where the split has several |
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from pipeline.artefact import CorruptArtefactError, atomic_path, read_arrays

SPLIT_ORDER = ("val", "id_test", "ood_test")


@dataclass(frozen=True)
class Predictions:
    """One method's scores on one split."""

    scores: ndarray
    """float64 (n, k)"""
    labels: ndarray
    """int64 (n,) of a classification, float64 (n, k) of a regression"""
    ids: ndarray
    """str (n,)"""
    variance: ndarray | None = None
    """float64 (n, k): the predictive variance, in squared units of the targets"""
    groups: ndarray | None = None
    """str (n,): the domain of each row, where the split has several"""

    @property
    def is_regression(self) -> bool:
        """Whether the labels are real numbers."""
        return bool(np.issubdtype(self.labels.dtype, np.floating))


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write one split's predictions, atomically; equal predictions give equal bytes."""
    arrays = {
        "scores": np.asarray(predictions.scores, dtype=np.float64),
        "labels": predictions.labels,
        "ids": np.asarray(predictions.ids, dtype=np.str_),
    }
    if predictions.variance is not None:
        arrays["variance"] = np.asarray(predictions.variance, dtype=np.float64)
    if predictions.groups is not None:
        arrays["groups"] = np.asarray(predictions.groups, dtype=np.str_)
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_predictions(path: Path) -> Predictions:
    """The predictions in one file; a damaged or incomplete one is refused by name."""
    arrays = read_arrays(path)
    absent = {"scores", "labels", "ids"} - set(arrays)
    if absent:
        raise CorruptArtefactError(f"{path} lacks {', '.join(sorted(absent))}.")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise CorruptArtefactError(f"{path} holds arrays of different lengths: {lengths}.")
    optional = {name: arrays.get(name) for name in ("variance", "groups")}
    return Predictions(arrays["scores"], arrays["labels"], arrays["ids"], **optional)


def split_files(folder: Path) -> list[Path]:
    """The files of one method's splits: validation, ID test, OOD test, then others by name."""
    files = folder.glob("*.npz") if folder.is_dir() else ()
    return sorted(files, key=lambda path: (rank(SPLIT_ORDER, path.stem), path.stem))


def rank(order: tuple[str, ...], name: str) -> int:
    """A name's place in an order; those not in it come after all."""
    return order.index(name) if name in order else len(order)
