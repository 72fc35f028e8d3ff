"""Posteriors from products with J alone: no features are stored, no matrix is formed.

Function space solves (JJᵀ + ρI) α = r, parameter space (JᵀJ + ρI) w = Jᵀr, with ρ = σ²/s, by
conjugate gradients. Every solve is certified by an exact product; variances whose solves did not
converge are refused.
"""

import logging
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gp.evidence import Evidence
from pipeline.gp.products import (
    ProductKernel,
    Solved,
    function_kernel,
    parameter_kernel,
    solved,
)
from pipeline.gp.rows import kernel, squared_norms, times
from pipeline.jacobian.operators import JacobianOperator
from pipeline.types import InputError

logger = logging.getLogger(__name__)

VARIANCE_BLOCK = 64
"""Test rows whose variances are solved for at once."""


class NotConvergedError(InputError):
    """Variances asked of a solve or a fit that did not converge."""


@dataclass(frozen=True)
class ImplicitOptions:
    """How far conjugate gradients go."""

    tol: float | None = None
    """Largest relative residual ‖(K + ρI)x − b‖ / ‖b‖ of a converged solve; None is 1e-6, or 1e-4
    for networks below float64, whose rounding ends there."""
    max_iterations: int = 1_000
    """Products of one solve."""
    allow_unconverged: bool = False
    """Whether variances may come from solves that did not converge."""

    def tolerance(self, dtype: torch.dtype) -> float:
        """``tol``, or the one that products in this type can reach."""
        if self.tol is not None:
            return self.tol
        return 1e-6 if dtype == torch.float64 else 1e-4


@dataclass(frozen=True)
class ImplicitPosterior(ABC):
    """What both spaces share: the data, the hyperparameters, and how the mean's solve ended."""

    J: JacobianOperator
    residuals: Float[Tensor, "n c"]
    outputscale: float
    noise: float
    options: ImplicitOptions
    solution: Solved

    @property
    def ratio(self) -> float:
        """ρ = σ²/s"""
        return self.noise / self.outputscale

    def variance(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, " m"]:
        """Posterior variance of f, some rows at a time."""
        return torch.cat([self._variance(block) for block in rows.split(VARIANCE_BLOCK)])

    def log_marginal_likelihood(self) -> tuple[float, float]:
        """An estimate of log N(r | 0, sJJᵀ + σ²I) in nats, and its standard error."""
        evidence = Evidence.of_operator(function_kernel(self.J), self.residuals)
        return evidence.log_marginal_likelihood(self.outputscale, self.noise)

    @abstractmethod
    def _variance(self, rows: Tensor) -> Tensor:
        """Posterior variance of f for one block of rows."""

    def _trusted(self, found: Solved) -> Tensor:
        """The solution, refused where it did not converge."""
        if not (found.converged or self.options.allow_unconverged):
            raise NotConvergedError(
                f"{_ending(found)} Use more noise, more iterations, a float64 "
                "network, or allow_unconverged=True."
            )
        return found.x


@dataclass(frozen=True)
class ImplicitFunctionSpace(ImplicitPosterior):
    """By solves with JJᵀ + ρI, the first of them (JJᵀ + ρI) α = r."""

    def mean(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, "m c"]:
        """Posterior mean of f − μ."""
        return times(rows, self.weights())

    def weights(self) -> Float[Tensor, "p c"]:
        """Posterior mean of θ′: Jᵀα."""
        return self._weights

    @cached_property
    def _weights(self) -> Tensor:
        return self.J.t_matmul(self.solution.x.to(self.J.dtype)).double()

    def covariance(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, "m m"]:
        """Posterior covariance of f between rows."""
        cross, x = self._explained(rows)
        explained = cross.T @ x
        return self.outputscale * (kernel(rows, rows) - (explained + explained.T) / 2)

    def _variance(self, rows: Tensor) -> Tensor:
        cross, x = self._explained(rows)
        return self.outputscale * (squared_norms(rows) - (cross * x).sum(dim=0))

    def _explained(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """C = J J*ᵀ and (JJᵀ + ρI)⁻¹C."""
        cross = self.J.matmul(rows.T).double()
        found = _solve(function_kernel(self.J), cross, self.ratio, self.options)
        return cross, self._trusted(found)


@dataclass(frozen=True)
class ImplicitParameterSpace(ImplicitPosterior):
    """By solves with JᵀJ + ρI, the first of them (JᵀJ + ρI) w = Jᵀr."""

    inexact: ProductKernel | None = None
    """Cheaper products with about JᵀJ, such as finite differences give."""

    def mean(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, "m c"]:
        """Posterior mean of f − μ."""
        return times(rows, self.weights())

    def weights(self) -> Float[Tensor, "p c"]:
        """Posterior mean of θ′."""
        return self.solution.x

    def covariance(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, "m m"]:
        """Posterior covariance of f between rows."""
        found = times(rows, self._solved(rows))
        return self.noise * (found + found.T) / 2

    def _variance(self, rows: Tensor) -> Tensor:
        return self.noise * (rows.T * self._solved(rows)).sum(dim=0)

    def _solved(self, rows: Tensor) -> Tensor:
        """(JᵀJ + ρI)⁻¹J*ᵀ"""
        operator, B = parameter_kernel(self.J), rows.double().T
        return self._trusted(_solve(operator, B, self.ratio, self.options, self.inexact))


def implicit_function_space(
    J: JacobianOperator,
    residuals: Float[Tensor, "n c"],
    outputscale: float,
    noise: float,
    options: ImplicitOptions | None = None,
) -> ImplicitFunctionSpace:
    """The posterior given residuals y − μ, from products with JJᵀ."""
    options = options or ImplicitOptions()
    found = _solve(function_kernel(J), residuals, _ratio(outputscale, noise), options)
    _warn_unconverged(found)
    return ImplicitFunctionSpace(J, residuals, outputscale, noise, options, found)


def implicit_parameter_space(
    J: JacobianOperator,
    residuals: Float[Tensor, "n c"],
    outputscale: float,
    noise: float,
    options: ImplicitOptions | None = None,
    *,
    inexact: ProductKernel | None = None,
) -> ImplicitParameterSpace:
    """The posterior given residuals y − μ, from products with JᵀJ.

    ``inexact`` products, finite differences for instance, carry the iterations; the residual is
    taken with exact ones.
    """
    options = options or ImplicitOptions()
    moment = J.t_matmul(residuals.to(J.dtype)).double()
    ratio = _ratio(outputscale, noise)
    found = _solve(parameter_kernel(J), moment, ratio, options, inexact)
    _warn_unconverged(found)
    return ImplicitParameterSpace(J, residuals, outputscale, noise, options, found, inexact)


def more_data(
    posterior: ImplicitFunctionSpace | ImplicitParameterSpace,
    J: JacobianOperator,
    residuals: Float[Tensor, "N c"],
) -> ImplicitFunctionSpace | ImplicitParameterSpace:
    """The posterior of all data, J and r, whose first rows are the posterior's own.

    The old solution starts the new solve.
    """
    ratio, options = posterior.ratio, posterior.options
    if isinstance(posterior, ImplicitFunctionSpace):
        old = posterior.solution.x
        start = torch.cat([old, old.new_zeros(len(residuals) - len(old), old.shape[1])])
        found = _solve(function_kernel(J), residuals, ratio, options, start=start)
    else:
        if posterior.inexact is not None:
            raise InputError("inexact products are of the data they were made for. Make both anew.")
        moment = J.t_matmul(residuals.to(J.dtype)).double()
        found = _solve(parameter_kernel(J), moment, ratio, options, start=posterior.solution.x)
    _warn_unconverged(found)
    return replace(posterior, J=J, residuals=residuals, solution=found)


def _solve(
    operator: ProductKernel,
    B: Float[Tensor, "n c"],
    ratio: float,
    options: ImplicitOptions,
    inexact: ProductKernel | None = None,
    start: Float[Tensor, "n c"] | None = None,
) -> Solved:
    return solved(
        operator,
        B,
        ratio,
        tol=options.tolerance(operator.dtype),
        max_iterations=options.max_iterations,
        inexact=inexact,
        start=start,
    )


def _ending(found: Solved) -> str:
    return (
        f"conjugate gradients ended at a residual of {found.residual:.1e} after {found.iterations} "
        f"iterations, and {found.tolerance:.0e} was asked for."
    )


def _warn_unconverged(found: Solved) -> None:
    """Means of an unconverged solve are given, with a warning."""
    if not found.converged:
        logger.warning("the posterior mean is inexact: %s", _ending(found))


def _ratio(outputscale: float, noise: float) -> float:
    if not (0 < outputscale < math.inf and 0 < noise < math.inf):
        raise InputError(
            "implicit solves need a finite outputscale and noise above 0; got "
            f"{outputscale} and {noise}."
        )
    return noise / outputscale
