"""Samples and targets as a user has them, checked and made into tensors."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d, validate_data
from torch import Tensor

from pipeline.types import InputError, Inputs, batch_size


def as_inputs(estimator: BaseEstimator, X: Any, *, fitting: bool) -> Inputs:
    """X as tensors of finite numbers, of the sample shape that ``estimator`` was fitted on.

    Tensors and mappings of tensors stay as they are. Whatever scikit-learn takes (arrays, lists,
    data frames) becomes float32, and errors are scikit-learn's.
    """
    if isinstance(X, Mapping) and not issparse(X):  # scipy's dok_matrix is a mapping
        inputs: Inputs = _as_mapping(X)
    elif isinstance(X, Tensor):
        inputs = X
    else:
        array = validate_data(
            estimator, X, reset=fitting, dtype=np.float32, allow_nd=True, order="C"
        )
        inputs = torch.from_numpy(array)
    _refuse_nonfinite(inputs)
    shapes = _sample_shapes(inputs)
    if fitting:
        estimator._sample_shapes = shapes
    elif shapes != estimator._sample_shapes:
        raise InputError(f"samples are {shapes}, the fit was on {estimator._sample_shapes}.")
    return inputs


def as_labels(y: Any) -> ndarray:
    """Class labels (n,); a column is flattened with a warning, real numbers are refused."""
    _refuse_none(y)
    labels = column_or_1d(check_array(y, ensure_2d=False, dtype=None), warn=True)
    check_classification_targets(labels)
    return labels


def as_targets(y: Any) -> ndarray:
    """Finite real targets, float64 (n,) or (n, t)."""
    _refuse_none(y)
    targets: ndarray = check_array(y, ensure_2d=False, dtype=np.float64)
    return targets


def refuse_other_length(inputs: Inputs, y: ndarray) -> None:
    """Raise where samples and targets differ in number."""
    if batch_size(inputs) != len(y):
        raise InputError(f"X has {batch_size(inputs)} samples and y has {len(y)}.")


def _refuse_none(y: Any) -> None:
    if y is None:
        raise InputError("fit requires y to be passed, but the target y is None.")


def _as_mapping(X: Mapping[str, Any]) -> Inputs:
    lengths = {name: len(value) for name, value in X.items() if isinstance(value, Tensor)}
    if len(lengths) != len(X) or len(set(lengths.values())) != 1:
        found = {name: lengths.get(name, type(X[name]).__name__) for name in X}
        raise InputError(f"a mapping must hold tensors of one length, found {found}.")
    return dict(X)


def _tensors(inputs: Inputs) -> Mapping[str, Tensor]:
    return {"X": inputs} if isinstance(inputs, Tensor) else inputs


def _sample_shapes(inputs: Inputs) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape[1:]) for name, tensor in _tensors(inputs).items()}


def _refuse_nonfinite(inputs: Inputs) -> None:
    for name, tensor in _tensors(inputs).items():
        finite = torch.isfinite(tensor).flatten(1).all(dim=1)
        if not bool(finite.all()):
            first = int((~finite).nonzero()[0])
            raise InputError(
                f"{name} holds NaN or infinity in {int((~finite).sum())} sample(s), the first at "
                f"row {first}. Leave them out, or impute."
            )
