"""What classifier and regressor share: features, kernel, path, weights in feature space."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from pipeline.estimator.inputs import as_inputs
from pipeline.estimator.memory import refuse_memory
from pipeline.gram import gram
from pipeline.jacobian import FeatureExtractor
from pipeline.models.head import with_head
from pipeline.models.network import as_network, check_forward
from pipeline.sketch import make_sketch
from pipeline.solvers.cholesky import cholesky_factor, leave_one_out_residuals
from pipeline.solvers.operator import DenseKernel
from pipeline.solvers.path_result import PathResult
from pipeline.solvers.ridge_path import fit_path
from pipeline.solvers.select import Score
from pipeline.solvers.targets import CenteredTargets
from pipeline.types import InputError, Inputs, batch_size, move_inputs, slice_inputs

COLUMNS = 8192
"""Columns of the features that are converted to float64 at once."""


class Machine(BaseEstimator):
    """Kernel ridge regression on a network's sketched gradients, ridge by leave-one-out."""

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

    def features(self, X: Any) -> Float[ndarray, "n p"]:
        """φ(x) of samples, float32: the gradients that the sketch keeps, before its weights."""
        check_is_fitted(self, "featurizer_")
        return self._collected(as_inputs(self, X, fitting=False))

    def _fit(
        self, inputs: Inputs, targets: CenteredTargets, score: Score
    ) -> tuple[PathResult, Float[ndarray, "n n"]]:
        """Features, K and the ridge of the best leave-one-out score; the path and K."""
        if self.batch_size < 1:
            raise InputError(f"batch_size must be 1 or more, got {self.batch_size}.")
        network = with_head(
            as_network(copy.deepcopy(self.model)), self.head, outputs=1, seed=self.seed
        )
        first = move_inputs(slice_inputs(inputs, slice(0, 2)), torch.device("cpu"), torch.float32)
        check_forward(network, first, pooled=False)
        sketch = make_sketch(self.sketch, network.module, self.sketch_size, self.seed)
        refuse_memory(batch_size(inputs), sketch.size, targets.matrix.shape[1])
        self.featurizer_ = FeatureExtractor(
            network.module, sketch, output=self.output, seed=self.seed, device=self._chosen_device()
        )
        self.n_parameters_ = sketch.size
        weights = sketch.column_weights.numpy()
        phi = self._collected(inputs)
        K = gram(phi, weights=weights)
        given = (self.ridge,) if isinstance(self.ridge, int | float) else self.ridge
        path = fit_path(
            K, targets.matrix, None, score, ridges="telescopic" if given == "loo" else tuple(given)
        )
        self.theta_ = primal_weights(phi, weights, path.dual_weights.numpy())
        self.intercept_ = targets.mean.numpy()
        self.ridge_, self.certificate_ = path.ridge, path.certificate
        return path, K

    def _chosen_device(self) -> str:
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def _batches(self, inputs: Inputs) -> Iterator[tuple[slice, Float[ndarray, "b p"]]]:
        """Rows and their features, batch by batch."""
        n = batch_size(inputs)
        for start in range(0, n, self.batch_size):
            rows = slice(start, min(start + self.batch_size, n))
            yield rows, self.featurizer_(slice_inputs(inputs, rows)).phi.float().cpu().numpy()

    def _collected(self, inputs: Inputs) -> Float[ndarray, "n p"]:
        phi = np.empty((batch_size(inputs), self.n_parameters_), dtype=np.float32)
        for rows, features in self._batches(inputs):
            phi[rows] = features
        return phi

    def _scores(self, X: Any) -> Float[ndarray, "m k"]:
        """φ(x)·θ, the targets' mean added back; one batch of features in memory at a time."""
        check_is_fitted(self, "theta_")
        inputs = as_inputs(self, X, fitting=False)
        scores = np.empty((batch_size(inputs), self.theta_.shape[1]))
        for rows, features in self._batches(inputs):
            scores[rows] = features.astype(np.float64) @ self.theta_ + self.intercept_
        return scores

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def primal_weights(
    phi: Float[ndarray, "n p"], weights: Float[ndarray, " p"], dual: Float[ndarray, "n k"]
) -> Float[ndarray, "p k"]:
    """θ = W² Φᵀ α in float64: φ(x)·θ equals the kernel's row k(x, X) α."""
    theta = np.empty((phi.shape[1], dual.shape[1]))
    for start in range(0, len(theta), COLUMNS):
        columns = slice(start, start + COLUMNS)
        projected = phi[:, columns].astype(np.float64).T @ dual
        theta[columns] = weights[columns, None] ** 2 * projected
    return theta


def leave_one_out_scores(
    K: Float[ndarray, "n n"], targets: CenteredTargets, path: PathResult
) -> Float[ndarray, "n k"]:
    """Each training row's scores by the fit without it."""
    L = cholesky_factor(DenseKernel(torch.from_numpy(K)), path.ridge_absolute)
    residuals = leave_one_out_residuals(L, path.dual_weights)
    return (targets.matrix - residuals + targets.mean).numpy()
