"""Laplace's approximation of a classification: the MAP of θ′ and a Gaussian around it.

    maximize  Σ log softmax(μ + Jθ′)[y] − ‖θ′‖²/2s,   Σ_θ = (JᵀWJ + I/s)⁻¹

by Newton's method with a line search (the objective is concave), in function space
(Rasmussen & Williams 2006, algorithm 3.3, with a root of the singular W) or in parameter space,
whichever system is smaller. The covariance is that of the last Gauss–Newton matrix.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gp.categorical import (
    curvature_root,
    curvature_times,
    log_likelihood,
    root_transposed_rows,
)
from pipeline.gp.rows import kernel, primal, times, transposed_times
from pipeline.gp.weight_posterior import WeightPosterior
from pipeline.solvers.cholesky import cholesky_factor
from pipeline.solvers.operator import DenseKernel
from pipeline.types import InputError

HALVINGS = 30
"""Times a Newton step is halved before the search ends."""


@dataclass(frozen=True)
class Search:
    """How Newton's method ended."""

    log_posterior: float
    """Σ log p(y | f) − ‖θ′‖²/2s at the MAP, in nats."""
    gradient: float
    """Largest entry of a − (y − q), with θ′ = sJᵀa: 0 at the MAP."""
    iterations: int
    converged: bool


@dataclass(frozen=True)
class FunctionSpaceLaplace:
    """By nk×nk systems in I + Rᵀ(sJJᵀ)R; make it with :meth:`of`."""

    rows: Float[Tensor, "n*k p"]
    outputscale: float
    dual_weights: Float[Tensor, "n*k 1"]
    """a, with θ′ = sJᵀa"""
    root: Float[Tensor, "n k k"]
    factor: Float[Tensor, "n*k n*k"]
    """Cholesky factor of I + Rᵀ(sJJᵀ)R at the MAP."""
    search: Search

    @classmethod
    def of(
        cls,
        rows: Float[Tensor, "n*k p"],
        offsets: Float[Tensor, "n k"],
        Y: Float[Tensor, "n k"],
        outputscale: float,
        *,
        tol: float = 1e-8,
        max_iterations: int = 100,
    ) -> Self:
        """The approximation given rows, mean function and one-hot labels."""
        K = outputscale * kernel(rows, rows)

        def logits(a: Tensor) -> Tensor:
            return offsets + (K @ a).reshape(Y.shape)

        def objective(a: Tensor) -> float:
            return float(log_likelihood(logits(a), Y) - 0.5 * (a * (K @ a)).sum())

        def target(a: Tensor) -> Tensor:
            f = logits(a)
            R = curvature_root(f)
            factor = _whitened_factor(K, R)
            b = curvature_times(f, f - offsets) + Y - f.softmax(1)
            inner = root_transposed_rows(R, K @ b.reshape(-1, 1))
            solved = torch.cholesky_solve(inner, factor).reshape(*Y.shape, 1)
            return (b - (R @ solved)[..., 0]).reshape(-1, 1)

        def gradient(a: Tensor) -> Tensor:
            return a - (Y - logits(a).softmax(1)).reshape(-1, 1)

        start = K.new_zeros(len(K), 1)
        a, search = _newton(start, objective, target, gradient, tol, max_iterations)
        R = curvature_root(logits(a))
        return cls(rows, outputscale, a, R, _whitened_factor(K, R), search)

    def weights(self) -> Float[Tensor, "p 1"]:
        """The MAP of θ′."""
        return self.outputscale * transposed_times(self.rows, self.dual_weights)

    def mean(self, rows: Float[Tensor, "m*k p"]) -> Float[Tensor, "m*k 1"]:
        """Logits − μ at the MAP."""
        return self.outputscale * kernel(rows, self.rows) @ self.dual_weights

    def covariance(self, rows: Float[Tensor, "m*k p"]) -> Float[Tensor, "m*k m*k"]:
        """Covariance of the logits."""
        s = self.outputscale
        cross = root_transposed_rows(self.root, s * kernel(self.rows, rows))
        whitened = torch.linalg.solve_triangular(self.factor, cross, upper=False)
        return s * kernel(rows, rows) - whitened.T @ whitened

    def weight_posterior(self) -> WeightPosterior:
        """The same without the training rows: Q has a column for every row."""
        half = root_transposed_rows(self.root, self.rows.double())
        whitened = torch.linalg.solve_triangular(self.factor, half, upper=False)
        s = self.outputscale
        return WeightPosterior(self.weights(), s, math.sqrt(s) * whitened.T)

    def log_marginal_likelihood(self) -> float:
        """Laplace's estimate of log p(labels), in nats."""
        return self.search.log_posterior - float(self.factor.diagonal().log().sum())


@dataclass(frozen=True)
class ParameterSpaceLaplace:
    """By p×p systems in JᵀWJ + I/s; make it with :meth:`of`."""

    map_weights: Float[Tensor, "p 1"]
    outputscale: float
    factor: Float[Tensor, "p p"]
    """Cholesky factor of JᵀWJ + I/s at the MAP."""
    search: Search

    @classmethod
    def of(
        cls,
        rows: Float[Tensor, "n*k p"],
        offsets: Float[Tensor, "n k"],
        Y: Float[Tensor, "n k"],
        outputscale: float,
        *,
        tol: float = 1e-8,
        max_iterations: int = 100,
    ) -> Self:
        """The approximation given rows, mean function and one-hot labels."""

        def logits(theta: Tensor) -> Tensor:
            return offsets + times(rows, theta).reshape(Y.shape)

        def objective(theta: Tensor) -> float:
            penalty = 0.5 * theta.square().sum() / outputscale
            return float(log_likelihood(logits(theta), Y) - penalty)

        def slope(theta: Tensor) -> Tensor:
            moment = transposed_times(rows, (Y - logits(theta).softmax(1)).reshape(-1, 1))
            return moment - theta / outputscale

        def target(theta: Tensor) -> Tensor:
            factor = _precision_factor(rows, curvature_root(logits(theta)), outputscale)
            return theta + torch.cholesky_solve(slope(theta), factor)

        def gradient(theta: Tensor) -> Tensor:
            # In the units of function space: J(θ′ − sJᵀ(y − q)) / s.
            return -times(rows, slope(theta))

        start = offsets.new_zeros(rows.shape[1], 1)
        theta, search = _newton(start, objective, target, gradient, tol, max_iterations)
        factor = _precision_factor(rows, curvature_root(logits(theta)), outputscale)
        return cls(theta, outputscale, factor, search)

    def weights(self) -> Float[Tensor, "p 1"]:
        """The MAP of θ′."""
        return self.map_weights

    def mean(self, rows: Float[Tensor, "m*k p"]) -> Float[Tensor, "m*k 1"]:
        """Logits − μ at the MAP."""
        return times(rows, self.map_weights)

    def covariance(self, rows: Float[Tensor, "m*k p"]) -> Float[Tensor, "m*k m*k"]:
        """Covariance of the logits."""
        whitened = torch.linalg.solve_triangular(self.factor, rows.double().T, upper=False)
        return whitened.T @ whitened

    def log_marginal_likelihood(self) -> float:
        """Laplace's estimate of log p(labels), in nats."""
        half_logdet = float(self.factor.diagonal().log().sum())
        return (
            self.search.log_posterior
            - half_logdet
            - 0.5 * len(self.factor) * math.log(self.outputscale)
        )


Laplace = FunctionSpaceLaplace | ParameterSpaceLaplace


def laplace(
    rows: Float[Tensor, "n*k p"],
    offsets: Float[Tensor, "n k"],
    Y: Float[Tensor, "n k"],
    outputscale: float,
    *,
    tol: float = 1e-8,
    max_iterations: int = 100,
) -> Laplace:
    """The approximation in the space whose system is smaller."""
    if not outputscale > 0:
        raise InputError(f"the outputscale must be above 0, got {outputscale}.")
    kind = ParameterSpaceLaplace if rows.shape[1] < rows.shape[0] else FunctionSpaceLaplace
    return kind.of(rows, offsets, Y, outputscale, tol=tol, max_iterations=max_iterations)


def _newton(
    x: Tensor,
    objective: Callable[[Tensor], float],
    target: Callable[[Tensor], Tensor],
    gradient: Callable[[Tensor], Tensor],
    tol: float,
    max_iterations: int,
) -> tuple[Tensor, Search]:
    """Damped Newton steps from x towards ``target(x)`` until the gradient is below ``tol``."""
    value, taken = objective(x), 0
    while float(gradient(x).abs().max()) > tol and taken < max_iterations:
        step = target(x) - x
        taken += 1
        for halving in range(HALVINGS):
            moved = x + step / 2**halving
            better = objective(moved)
            if better >= value:
                break
        else:
            break
        x, value = moved, better
    size = float(gradient(x).abs().max())
    return x, Search(value, size, taken, size <= tol)


def _whitened_factor(K: Tensor, R: Float[Tensor, "n k k"]) -> Float[Tensor, "n*k n*k"]:
    """Cholesky factor of I + RᵀKR."""
    half = root_transposed_rows(R, K)
    B = root_transposed_rows(R, half.T)
    B = (B + B.T) / 2
    B.diagonal().add_(1)
    return cholesky_factor(DenseKernel(B), 0.0)


def _precision_factor(
    rows: Tensor, R: Float[Tensor, "n k k"], outputscale: float
) -> Float[Tensor, "p p"]:
    """Cholesky factor of JᵀWJ + I/s."""
    P = primal(root_transposed_rows(R.to(rows), rows))
    P.diagonal().add_(1 / outputscale)
    return cholesky_factor(DenseKernel(P), 0.0)
