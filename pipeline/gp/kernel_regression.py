"""Gaussian-process regression on a kernel that is at hand: hyperparameters, means and variances."""

from dataclasses import dataclass
from typing import Self

from jaxtyping import Float
from torch import Tensor

from pipeline.gp.evidence import Evidence
from pipeline.gp.hyperparameters import Hyperparameters, fit_hyperparameters
from pipeline.solvers.eigh import eigendecomposition


@dataclass(frozen=True)
class KernelRegression:
    """The posterior of every target, one outputscale and noise; make it with :meth:`of`."""

    hyperparameters: Hyperparameters
    vectors: Float[Tensor, "n n"]
    shrunk: Float[Tensor, " n"]
    """Eigenvalues of (sK + σ²I)⁻¹."""
    dual_weights: Float[Tensor, "n k"]

    @classmethod
    def of(cls, K: Float[Tensor, "n n"], residuals: Float[Tensor, "n k"]) -> Self:
        """At the hyperparameters of the largest marginal likelihood of targets − μ."""
        values, vectors = eigendecomposition(K)
        residuals = residuals.double()
        evidence = Evidence.of_eigenvectors(values, vectors, residuals)
        found = fit_hyperparameters([evidence])
        shrunk = 1 / (found.outputscale * values.clamp(min=0) + found.noise[0])
        dual = vectors @ (shrunk[:, None] * (vectors.T @ residuals))
        return cls(found, vectors, shrunk, dual)

    def moments(
        self, cross: Float[Tensor, "m n"], diagonal: Float[Tensor, " m"]
    ) -> tuple[Float[Tensor, "m k"], Float[Tensor, " m"]]:
        """Means of f − μ, and the variance of an observation, from k(x, train) and k(x, x)."""
        s = self.hyperparameters.outputscale
        cross = s * cross.double()
        explained = ((cross @ self.vectors).square() * self.shrunk).sum(dim=1)
        spread = (s * diagonal.double() - explained).clamp(min=0)
        return cross @ self.dual_weights, spread + self.hyperparameters.noise[0]
