"""The posterior in function space: an n×n system, for more parameters than rows.

With K = s J Jᵀ and residuals r = y − μ (Maddox et al. 2021, equation 3, whose leading σ² is a
misprint):

    mean        s J* Jᵀ (K + σ²I)⁻¹ r
    covariance  s J* (I − s Jᵀ (K + σ²I)⁻¹ J) J*ᵀ
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gp.noise import covariance_factor, noise_of, refuse_singular
from pipeline.gp.rows import kernel, squared_norms, transposed_times
from pipeline.solvers.cholesky import log_marginal_likelihood


@dataclass(frozen=True)
class FunctionSpace:
    """A Gaussian posterior given some rows; make it with :meth:`of`."""

    rows: Float[Tensor, "n p"]
    residuals: Float[Tensor, "n c"]
    """y − μ, float64; the columns are independent."""
    outputscale: float
    """s, the prior variance of every weight."""
    noise: Float[Tensor, " n"]
    """σ² of every row."""
    factor: Float[Tensor, "n n"]
    """Lower Cholesky factor of K + σ²I."""
    dual_weights: Float[Tensor, "n c"]
    """(K + σ²I)⁻¹ r"""

    @classmethod
    def of(
        cls,
        rows: Float[Tensor, "n p"],
        residuals: Float[Tensor, "n c"],
        outputscale: float,
        noise: float | Float[Tensor, " n"],
    ) -> Self:
        """The posterior given all rows at once. Refuses a singular K without noise by its rows."""
        variances = noise_of(noise, rows)
        refuse_singular(rows, variances)
        A = outputscale * kernel(rows, rows)
        A.diagonal().add_(variances)
        factor = covariance_factor(A)
        dual = torch.cholesky_solve(residuals, factor)
        return cls(rows, residuals, outputscale, variances, factor, dual)

    def extended(
        self,
        rows: Float[Tensor, "m p"],
        residuals: Float[Tensor, "m c"],
        noise: float | Float[Tensor, " m"],
    ) -> Self:
        """The posterior given more rows: the factor grows by a block, nothing is factored again."""
        variances = noise_of(noise, rows)
        all_rows = torch.cat([self.rows, rows])
        all_noise = torch.cat([self.noise, variances])
        refuse_singular(all_rows, all_noise)
        n, m = len(self.rows), len(rows)
        cross = self.outputscale * kernel(self.rows, rows)
        below = torch.linalg.solve_triangular(self.factor, cross, upper=False).T
        corner = self.outputscale * kernel(rows, rows) - below @ below.T
        corner.diagonal().add_(variances)
        factor = self.factor.new_zeros((n + m, n + m))
        factor[:n, :n], factor[n:, :n] = self.factor, below
        factor[n:, n:] = covariance_factor((corner + corner.T) / 2)
        all_residuals = torch.cat([self.residuals, residuals])
        dual = torch.cholesky_solve(all_residuals, factor)
        return type(self)(all_rows, all_residuals, self.outputscale, all_noise, factor, dual)

    def mean(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, "m c"]:
        """Posterior mean of f − μ."""
        return self.outputscale * kernel(rows, self.rows) @ self.dual_weights

    def variance(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, " m"]:
        """Posterior variance of f, the same for every column."""
        return self.outputscale * squared_norms(rows) - self._whitened(rows).square().sum(dim=0)

    def covariance(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, "m m"]:
        """Posterior covariance of f between rows."""
        whitened = self._whitened(rows)
        return self.outputscale * kernel(rows, rows) - whitened.T @ whitened

    def weights(self) -> Float[Tensor, "p c"]:
        """Posterior mean of θ′: the same predictions by J* θ′."""
        return self.outputscale * transposed_times(self.rows, self.dual_weights)

    def log_marginal_likelihood(self) -> float:
        """log N(r | 0, K + σ²I), summed over the columns, in nats."""
        each = log_marginal_likelihood(self.factor, self.residuals, self.dual_weights)
        return float(each.sum())

    def _whitened(self, rows: Float[Tensor, "m p"]) -> Float[Tensor, "n m"]:
        """L⁻¹ K(train, rows)"""
        cross = self.outputscale * kernel(self.rows, rows)
        return torch.linalg.solve_triangular(self.factor, cross, upper=False)
