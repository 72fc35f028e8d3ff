"""The kernel machine of a network in three lines, with scikit-learn's conventions and no cluster.

    from pipeline.estimator import EntkClassifier

    machine = EntkClassifier(network, sketch_size=100_000).fit(X, y)
    machine.predict(X_new), machine.predict_proba(X_new)

Features are computed batch by batch on a copy of the network with a new random head, kept in
memory, and regressed on by kernel ridge regression.
"""

import copy
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import psutil
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from pipeline.gram import gram
from pipeline.jacobian import FeatureExtractor
from pipeline.metrics import fit_temperature
from pipeline.models.head import with_head
from pipeline.models.network import as_network, check_forward
from pipeline.sketch import make_sketch
from pipeline.solvers.cholesky import cholesky_factor, leave_one_out_residuals
from pipeline.solvers.operator import DenseKernel
from pipeline.solvers.path_result import PathResult
from pipeline.solvers.ridge_path import fit_path
from pipeline.solvers.select import Score, accuracy, squared_error
from pipeline.solvers.targets import CenteredTargets, centered_targets, class_targets
from pipeline.types import InputError, Inputs, batch_size, move_inputs, slice_inputs

MEMORY_SHARE = 0.8
"""Of the available memory that features and kernel may take."""


class _Entk(BaseEstimator):
    """What classifier and regressor share: features, kernel, path."""

    def __init__(
        self,
        model: nn.Module,
        *,
        sketch: str = "uniform",
        sketch_size: int | None = None,
        ridge: Literal["loo"] | float | Sequence[float] = "loo",
        head: Literal["random", "keep"] = "random",
        output: int | Literal["sum", "random_direction"] = 0,
        seed: int = 0,
        batch_size: int = 64,
        device: Literal["auto", "cpu", "cuda"] = "auto",
    ) -> None:
        self.model = model
        self.sketch = sketch
        self.sketch_size = sketch_size
        self.ridge = ridge
        self.head = head
        self.output = output
        self.seed = seed
        self.batch_size = batch_size
        self.device = device

    def _fit(self, X: Any, targets: CenteredTargets, score: Score) -> PathResult:
        """Features, K and the ridge of the best leave-one-out score."""
        inputs = as_inputs(X)
        n = batch_size(inputs)
        if n != len(targets.matrix):
            raise InputError(f"X has {n} samples and y has {len(targets.matrix)}.")
        module = copy.deepcopy(self.model)
        network = with_head(as_network(module), self.head, outputs=1, seed=self.seed)
        first = move_inputs(slice_inputs(inputs, slice(0, 2)), torch.device("cpu"), torch.float32)
        check_forward(network, first, pooled=False)
        sketch = make_sketch(self.sketch, network.module, self.sketch_size, self.seed)
        refuse_memory(n, sketch.size)
        self.n_parameters_ = sketch.size
        self._weights = sketch.column_weights.numpy()
        self._extract = FeatureExtractor(
            network.module, sketch, output=self.output, seed=self.seed, device=self._chosen_device()
        )
        self._phi = self._features(inputs)
        K = gram(self._phi, weights=self._weights)
        given = (self.ridge,) if isinstance(self.ridge, int | float) else self.ridge
        path = fit_path(
            K, targets.matrix, None, score, ridges="telescopic" if given == "loo" else tuple(given)
        )
        self._K = K
        self._dual, self._mean = path.dual_weights.numpy(), targets.mean.numpy()
        self.ridge_, self.certificate_ = path.ridge, path.certificate
        return path

    def _chosen_device(self) -> str:
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def _features(self, inputs: Inputs) -> Float[ndarray, "n p"]:
        starts = range(0, batch_size(inputs), self.batch_size)
        batches = (slice_inputs(inputs, slice(s, s + self.batch_size)) for s in starts)
        return np.concatenate([self._extract(batch).phi.float().cpu().numpy() for batch in batches])

    def _scores(self, X: Any) -> Float[ndarray, "m k"]:
        """Ridge scores of new samples, the targets' mean added back."""
        check_is_fitted(self, "ridge_")
        phi = self._features(as_inputs(X))
        K_new = gram(phi, self._phi, weights=self._weights)
        return K_new.astype(np.float64) @ self._dual + self._mean

    def _leave_one_out(self, targets: CenteredTargets, path: PathResult) -> Float[ndarray, "n k"]:
        """Each training row's scores by the fit without it."""
        L = cholesky_factor(DenseKernel(self._K), path.ridge_absolute)
        residuals = leave_one_out_residuals(L, path.dual_weights)
        return (targets.matrix - residuals + targets.mean).numpy()


class EntkClassifier(ClassifierMixin, _Entk):
    """Kernel ridge classification on a network's sketched gradients.

    ``model`` ends in a linear layer; a random one-output head is put on a copy of it unless
    ``head="keep"``. ``ridge`` is relative to mean(diag K): one value, a list to choose from, or
    "loo", a search, both by leave-one-out in closed form. ``sketch_size`` None keeps 100,000
    parameters, or all of a smaller network.

    After ``fit``: ``classes_``, ``ridge_``, ``certificate_``, ``temperature_``, ``n_parameters_``.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on samples X (n, …), tensors, an array or a mapping of tensors, and labels (n,)."""
        encoder = LabelEncoder().fit(np.asarray(y))
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise InputError(f"classification needs two classes or more, y has {self.classes_}.")
        labels = encoder.transform(np.asarray(y))
        targets = class_targets(labels, len(self.classes_))
        path = self._fit(X, targets, accuracy(labels, targets.mean))
        self.temperature_ = fit_temperature(self._leave_one_out(targets, path), labels)
        return self

    def decision_function(self, X: Any) -> Float[ndarray, "m k"]:
        """Ridge scores, one column a class."""
        return self._scores(X)

    def predict(self, X: Any) -> ndarray:
        """The class of the largest score."""
        predicted: ndarray = self.classes_[self._scores(X).argmax(axis=1)]
        return predicted

    def predict_proba(self, X: Any) -> Float[ndarray, "m k"]:
        """softmax(scores / T), T fitted on leave-one-out scores."""
        probabilities: ndarray = softmax(self._scores(X) / self.temperature_, axis=1)
        return probabilities


class EntkRegressor(RegressorMixin, _Entk):
    """Kernel ridge regression on a network's sketched gradients; see :class:`EntkClassifier`."""

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on samples X (n, …) and real targets y, (n,) or (n, t)."""
        Y = np.asarray(y, dtype=np.float64)
        self._one_target = Y.ndim == 1
        columns = torch.from_numpy(Y.reshape(len(Y), -1))
        targets = centered_targets(columns)
        self._fit(X, targets, squared_error(columns, targets.mean))
        return self

    def predict(self, X: Any) -> ndarray:
        """Predictions, (m,) or (m, t) as the targets were."""
        scores = self._scores(X)
        return scores[:, 0] if self._one_target else scores


def as_inputs(X: Any) -> Inputs:
    """X as tensors: floating-point arrays become float32."""
    if isinstance(X, Tensor | dict):
        return X
    array = np.asarray(X)
    if array.ndim < 2 or array.dtype.kind not in "fiu":
        raise InputError(f"X must be samples (n, …) of numbers, found {array.dtype} {array.shape}.")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def refuse_memory(n: int, p: int) -> None:
    """Raise where features (float32, twice while they are collected) and K would not fit."""
    needed = 4 * (2 * n * p + 2 * n * n)
    allowed = int(MEMORY_SHARE * psutil.virtual_memory().available)
    if needed > allowed:
        raise InputError(
            f"{n:,} samples × {p:,} parameters need {needed / 2**30:.1f} GiB of memory, "
            f"{allowed / 2**30:.1f} GiB may be used. Lower sketch_size, or use `entk run`, which "
            "keeps features on disk."
        )
