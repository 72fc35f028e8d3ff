"""Regression targets of a classification: one-hot rows minus the training class mean."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.types import InputError


@dataclass(frozen=True)
class CenteredTargets:
    """Targets with their mean taken out; what is regressed on them has the mean added back."""

    matrix: Float[Tensor, "n k"]
    """float64, columns summing to zero: rank k − 1 at most."""
    mean: Float[Tensor, " k"]

    def scores(self, predictions: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        """Predictions in the units of the uncentred targets."""
        return predictions + self.mean.to(predictions)


def class_targets(labels: np.ndarray, classes: int) -> CenteredTargets:
    """One-hot rows of int labels in 0 … classes − 1, minus the training class mean."""
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise InputError(
            f"class labels must be integers of shape (n,), found {labels.dtype} {labels.shape}."
        )
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        row = int(outside.argmax())
        raise InputError(
            f"label {labels[row]} of row {row} is outside 0 … {classes - 1}: "
            f"{classes} classes were declared."
        )
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), classes)
    return centered_targets(one_hot.double())


def centered_targets(Y: Float[Tensor, "n k"]) -> CenteredTargets:
    """Real targets minus their training mean."""
    Y = Y.double()
    mean = Y.mean(dim=0)
    return CenteredTargets(Y - mean, mean)
