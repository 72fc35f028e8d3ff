"""The posterior as a Gaussian over θ′ that has forgotten its data: predictions in constant time.

    θ′ ~ N(w, s (I − QQᵀ)),   variance of f = s (‖φ‖² − ‖Qᵀφ‖²)

Q has as many columns as there were rows (exact), or fewer: from a Lanczos basis V of K = JJᵀ with
T = VᵀKV, (K + ρI)⁻¹ ≈ V (T + ρI)⁻¹ Vᵀ gives Q = Jᵀ V (T + ρI)^{-1/2}. Those variances are never too
small. This is LOVE (Pleiss et al. 2018, "Constant-time predictive distributions for Gaussian
processes"), from a random probe and in the p columns of J instead of its n rows.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gp.function_space import FunctionSpace
from pipeline.gp.implicit import (
    ImplicitFunctionSpace,
    ImplicitParameterSpace,
    ImplicitPosterior,
)
from pipeline.gp.noise import covariance_factor, noise_of
from pipeline.gp.products import function_kernel
from pipeline.gp.rows import kernel, squared_norms, times, transposed_times
from pipeline.solvers.krylov import KrylovBasis
from pipeline.solvers.operator import DenseKernel, KernelOperator, random_block
from pipeline.types import InputError

Trained = FunctionSpace | ImplicitFunctionSpace | ImplicitParameterSpace
"""Posteriors that still have their data."""

PROBES = 1
"""Random columns that the Lanczos basis starts from: at equal rank, degree counts for more."""


@dataclass(frozen=True)
class WeightPosterior:
    """θ′ ~ N(w, s(I − QQᵀ)); predictions need rows of J at new inputs, and nothing else."""

    mean_weights: Float[Tensor, "p c"]
    outputscale: float
    directions: Float[Tensor, "p r"]
    """Q"""

    def mean(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, "m c"]:
        """Posterior mean of f − μ."""
        return times(rows, self.mean_weights)

    def variance(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, " m"]:
        """Posterior variance of f."""
        known = times(rows, self.directions).square().sum(dim=1)
        return self.outputscale * (squared_norms(rows) - known)

    def covariance(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, "m m"]:
        """Posterior covariance of f between rows."""
        known = times(rows, self.directions)
        return self.outputscale * (kernel(rows, rows) - known @ known.T)

    def weights(self) -> Float[Tensor, "p c"]:
        """Posterior mean of θ′."""
        return self.mean_weights

    def extended(
        self,
        rows: Float[Tensor, "m p"],
        residuals: Float[Tensor, "m c"],
        noise: float | Float[Tensor, " m"],
    ) -> Self:
        """The posterior given more rows; those before are not needed."""
        known = times(rows, self.directions)
        # Covariance of θ′ with the new f, and of the new y.
        shared = self.outputscale * (rows.double().T - self.directions @ known.T)
        covariance = self.covariance(rows)
        covariance.diagonal().add_(noise_of(noise, rows))
        factor = covariance_factor((covariance + covariance.T) / 2)
        surprise = residuals - self.mean(rows)
        mean = self.mean_weights + shared @ torch.cholesky_solve(surprise, factor)
        whitened = torch.linalg.solve_triangular(factor, shared.T, upper=False).T
        directions = torch.cat([self.directions, whitened / math.sqrt(self.outputscale)], dim=1)
        return type(self)(mean, self.outputscale, directions)


@dataclass(frozen=True)
class VarianceError:
    """How far constant-time variances are from exact ones, on some rows."""

    largest: float
    """max (fast − exact) / exact"""
    mean: float
    rows: int


def exact_weights(posterior: FunctionSpace) -> WeightPosterior:
    """The same posterior, exactly: Q has a column for every training row."""
    whitened = torch.linalg.solve_triangular(posterior.factor, posterior.rows.double(), upper=False)
    s = posterior.outputscale
    return WeightPosterior(posterior.weights(), s, math.sqrt(s) * whitened.T)


def fast_weights(posterior: Trained, rank: int, *, seed: int = 0) -> WeightPosterior:
    """The posterior with variances from a Lanczos basis of about ``rank`` vectors.

    Needs one noise variance for all rows.
    """
    ratio, operator = _ratio_and_kernel(posterior)
    if rank < 1:
        raise InputError(f"the rank must be at least 1, got {rank}.")
    probes = random_block(operator, min(PROBES, rank, operator.n), seed)
    krylov = KrylovBasis(operator, probes)
    while krylov.products_size == 0 or not (krylov.exhausted or krylov.products_size >= rank):
        krylov.grow()
    values, rotation = torch.linalg.eigh(krylov.projected)
    basis = krylov.vectors @ (rotation / (values.clamp(min=0) + ratio).sqrt())
    if isinstance(posterior, FunctionSpace):
        directions = transposed_times(posterior.rows, basis)
    else:
        directions = posterior.J.t_matmul(basis.to(posterior.J.dtype)).double()
    return WeightPosterior(posterior.weights(), posterior.outputscale, directions)


def variance_error(
    fast: WeightPosterior,
    exact: FunctionSpace | ImplicitFunctionSpace,
    rows: Float[Tensor, "m p"],
) -> VarianceError:
    """The relative error of constant-time variances on some rows."""
    wanted = exact.variance(rows)
    errors = (fast.variance(rows) - wanted) / wanted
    return VarianceError(float(errors.abs().max()), float(errors.abs().mean()), len(rows))


def _ratio_and_kernel(
    posterior: Trained,
) -> tuple[float, KernelOperator]:
    if isinstance(posterior, ImplicitPosterior):
        return posterior.ratio, function_kernel(posterior.J)
    noise = posterior.noise
    if not bool((noise == noise[0]).all()):
        raise InputError("constant-time variances need one noise variance for all rows.")
    rows = posterior.rows
    return float(noise[0]) / posterior.outputscale, DenseKernel(kernel(rows, rows))
