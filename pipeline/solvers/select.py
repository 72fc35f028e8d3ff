"""Choosing on validation: the best score, and ties within one standard error to the simpler fit.

Selection sees validation predictions and a score function, nothing else: no argument here can
carry another split's labels.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Score = Callable[[Float[Tensor, "m k"]], tuple[float, float]]
"""Validation predictions (of the centred targets) to a value, larger is better, and its stderr."""


def accuracy(labels: np.ndarray, mean: Float[Tensor, " k"]) -> Score:
    """Share of rows whose largest score, the targets' mean added back, is their label's."""
    truth = torch.from_numpy(np.asarray(labels, dtype=np.int64))

    def score(predictions: Float[Tensor, "m k"]) -> tuple[float, float]:
        predicted = (predictions + mean.to(predictions)).argmax(dim=1)
        share = float((predicted == truth.to(predicted.device)).double().mean())
        return share, float(np.sqrt(share * (1 - share) / len(truth)))

    return score


def squared_error(Y: Float[Tensor, "m k"], mean: Float[Tensor, " k"]) -> Score:
    """Minus the mean squared error over rows and targets, with its stderr over rows."""
    wanted = Y.double() - mean.double()

    def score(predictions: Float[Tensor, "m k"]) -> tuple[float, float]:
        errors = (predictions - wanted.to(predictions)).square().mean(dim=1)
        stderr = float(errors.std() / len(errors) ** 0.5) if len(errors) > 1 else 0.0
        return -float(errors.mean()), stderr

    return score


def best_of(values: Sequence[float]) -> int:
    """Index of the largest value, the first of equals."""
    return max(range(len(values)), key=lambda i: (values[i], -i))


def one_standard_error(
    values: Sequence[float], stderrs: Sequence[float], counted: Sequence[bool] | None = None
) -> int:
    """Index of the first value within one standard error of the best.

    Candidates come from the most to the least regularized (largest ridge, fewest iterations
    first), so that ties go to the simpler fit. Those not ``counted`` cannot win.
    """
    allowed = [i for i in range(len(values)) if counted is None or counted[i]]
    if not allowed:
        raise ValueError("no candidate counts: nothing can be selected.")
    best = max(allowed, key=lambda i: (values[i], -i))
    return next(i for i in allowed if values[i] >= values[best] - stderrs[best])
