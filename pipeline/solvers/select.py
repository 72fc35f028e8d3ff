"""Choosing on validation: the best score, and ties within one standard error to the simpler fit.

All candidates are graded on the same rows, so the standard error that decides a tie is that of
their difference, row by row. It is far below either score's own: neighbouring ridges disagree on
few rows, and the score's own error would let a ridge win that those rows show to be worse.

Selection sees validation predictions and a score function, nothing else: no argument here can
carry another split's labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Grade:
    """How one candidate did on every validation row; larger is better."""

    merits: Float[Tensor, " m"]

    @property
    def value(self) -> float:
        """The score: the rows' mean."""
        return float(self.merits.double().mean())

    @property
    def stderr(self) -> float:
        """The score's standard error; 0 for one row."""
        return _stderr_of_mean(self.merits.double())

    def ties(self, better: "Grade") -> bool:
        """Whether ``better`` is no more than one standard error of the difference ahead."""
        ahead = better.merits.double() - self.merits.double()
        return float(ahead.mean()) <= _stderr_of_mean(ahead)


Score = Callable[[Float[Tensor, "m k"]], Grade]
"""Grades validation predictions of the centred targets."""


def accuracy(labels: np.ndarray, mean: Float[Tensor, " k"]) -> Score:
    """1 for a row whose largest score, the targets' mean added back, is its label's, 0 else."""
    truth = torch.from_numpy(np.asarray(labels, dtype=np.int64))

    def score(predictions: Float[Tensor, "m k"]) -> Grade:
        predicted = (predictions + mean.to(predictions)).argmax(dim=1)
        return Grade((predicted == truth.to(predicted.device)).float().cpu())

    return score


def squared_error(Y: Float[Tensor, "m k"], mean: Float[Tensor, " k"]) -> Score:
    """Minus each row's mean squared error over the targets."""
    wanted = Y.double() - mean.double()

    def score(predictions: Float[Tensor, "m k"]) -> Grade:
        return Grade(-(predictions - wanted.to(predictions)).square().mean(dim=1).cpu())

    return score


def best_of(values: Sequence[float]) -> int:
    """Index of the largest value, the first of equals."""
    return max(range(len(values)), key=lambda i: (values[i], -i))


def one_standard_error(grades: Sequence[Grade], counted: Sequence[bool] | None = None) -> int:
    """Index of the first candidate within one standard error of the best.

    Candidates come from the most to the least regularized (largest ridge, fewest iterations
    first), so that ties go to the simpler fit. Those not ``counted`` cannot win.
    """
    allowed = [i for i in range(len(grades)) if counted is None or counted[i]]
    if not allowed:
        raise ValueError("no candidate counts: nothing can be selected.")
    best = allowed[best_of([grades[i].value for i in allowed])]
    return next(i for i in allowed if i == best or grades[i].ties(grades[best]))


def _stderr_of_mean(x: Float[Tensor, " m"]) -> float:
    return float(x.std(correction=0)) / len(x) ** 0.5
