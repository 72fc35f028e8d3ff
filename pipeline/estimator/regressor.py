"""Regression on real targets."""

from typing import Any, Self

import torch
from numpy import ndarray
from sklearn.base import RegressorMixin
from sklearn.utils import Tags

from pipeline.estimator.inputs import as_inputs, as_targets, refuse_other_length
from pipeline.estimator.machine import Machine
from pipeline.solvers.select import squared_error
from pipeline.solvers.targets import centered_targets


class EntkRegressor(RegressorMixin, Machine):
    """Kernel ridge regression on a network's sketched gradients; see :class:`EntkClassifier`."""

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on samples X (n, …) and real targets y, (n,) or (n, t)."""
        inputs = as_inputs(self, X, fitting=True)
        y = as_targets(y)
        refuse_other_length(inputs, y)
        self._one_target = y.ndim == 1
        columns = torch.from_numpy(y.reshape(len(y), -1))
        targets = centered_targets(columns)
        self._fit(inputs, targets, squared_error(columns, targets.mean))
        return self

    def predict(self, X: Any) -> ndarray:
        """Predictions, (m,) or (m, t) as the targets were."""
        scores = self._scores(X)
        return scores[:, 0] if self._one_target else scores

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
