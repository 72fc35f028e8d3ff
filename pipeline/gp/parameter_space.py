"""The posterior in parameter space: a p×p system, for more rows than parameters.

With weights Σ⁻¹ = diag(σ²)⁻¹ and P = JᵀΣ⁻¹J + I/s (Maddox et al. 2021, equation 2):

    mean        J* P⁻¹ Jᵀ Σ⁻¹ r
    covariance  J* P⁻¹ J*ᵀ

which for one σ² is σ² J* (JᵀJ + (σ²/s) I)⁻¹ J*ᵀ.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gp.noise import noise_of
from pipeline.gp.rows import primal, times, transposed_times
from pipeline.solvers.cholesky import cholesky_factor
from pipeline.solvers.operator import DenseKernel
from pipeline.types import InputError


@dataclass(frozen=True)
class ParameterSpace:
    """A Gaussian posterior of θ′; make it with :meth:`of`."""

    precision: Float[Tensor, "p p"]
    """P, the posterior precision of θ′."""
    moment: Float[Tensor, "p c"]
    """JᵀΣ⁻¹r"""
    factor: Float[Tensor, "p p"]
    """Lower Cholesky factor of P."""
    outputscale: float
    """s, the prior variance of every weight."""
    fit: float
    """Σ_i rᵢ²/σᵢ² + c Σ_i log 2πσᵢ², summed over the c columns."""

    @classmethod
    def of(
        cls,
        rows: Float[Tensor, "n p"],
        residuals: Float[Tensor, "n c"],
        outputscale: float,
        noise: float | Float[Tensor, " n"],
    ) -> Self:
        """The posterior given all rows at once."""
        p = rows.shape[1]
        start = torch.eye(p, dtype=torch.float64, device=rows.device) / outputscale
        moment = residuals.new_zeros((p, residuals.shape[1]))
        return cls(start, moment, start, outputscale, 0.0).extended(rows, residuals, noise)

    def extended(
        self,
        rows: Float[Tensor, "m p"],
        residuals: Float[Tensor, "m c"],
        noise: float | Float[Tensor, " m"],
    ) -> Self:
        """The posterior given more rows: precisions add, the rows seen before are not needed."""
        variances = noise_of(noise, rows)
        if bool((variances == 0).any()):
            raise InputError(
                "parameter space divides by the noise variance, and it is 0. Give a noise above "
                "0, or use function space."
            )
        whitened = rows / variances.sqrt().to(rows)[:, None]
        precision = self.precision + primal(whitened)
        moment = self.moment + transposed_times(rows, residuals / variances[:, None])
        fit = (residuals.square() / variances[:, None]).sum()
        fit += residuals.shape[1] * (variances * 2 * math.pi).log().sum()
        factor = cholesky_factor(DenseKernel(precision), 0.0)
        return type(self)(precision, moment, factor, self.outputscale, self.fit + float(fit))

    def mean(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, "m c"]:
        """Posterior mean of f − μ."""
        return times(rows, self.weights())

    def variance(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, " m"]:
        """Posterior variance of f, the same for every column."""
        return self._whitened(rows).square().sum(dim=0)

    def covariance(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, "m m"]:
        """Posterior covariance of f between rows."""
        whitened = self._whitened(rows)
        return whitened.T @ whitened

    def weights(self) -> Float[Tensor, "p c"]:
        """Posterior mean of θ′."""
        return torch.cholesky_solve(self.moment, self.factor)

    def log_marginal_likelihood(self) -> float:
        """log N(r | 0, s J Jᵀ + diag σ²), summed over the columns, in nats."""
        p, c = self.moment.shape
        explained = (self.moment * self.weights()).sum()
        logdet = 2 * self.factor.diagonal().log().sum() + p * math.log(self.outputscale)
        return -0.5 * (self.fit - float(explained) + c * float(logdet))

    def _whitened(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, "p m"]:
        return torch.linalg.solve_triangular(self.factor, rows.double().T, upper=False)
