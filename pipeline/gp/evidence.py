"""The marginal likelihood at every outputscale and noise from one decomposition of K = J Jᵀ.

With ρ = σ²/s the covariance of y is s (K + ρI), so that

    log N(r | 0, s(K + ρI)) = −½ [ Σ v/(s(λ + ρ)) + c (N log 2πs + Σ w log(λ + ρ)) ]

over K's eigenvalues λ, with w = 1 and v the squared coordinates of r. Where K is known by its
products only, both sums are Gauss quadratures of Lanczos bases (Ubaru, Chen & Saad 2017): w from
random probes, with a spread, and v from r itself. Either way a new (s, σ²) costs no product with K.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gp.rows import kernel, primal, transposed_times
from pipeline.solvers.eigensystem import ritz_system
from pipeline.solvers.eigh import eigendecomposition
from pipeline.solvers.krylov import KrylovBasis
from pipeline.solvers.operator import KernelOperator
from pipeline.solvers.spectrum import estimate_spectrum

LANCZOS_STEPS = 40
"""Block steps of both quadratures: exact for polynomials in K of degree 79."""


@dataclass(frozen=True)
class Evidence:
    """Eigenvalues of one task's K and what its residuals have along them."""

    rows: int
    """N"""
    columns: int
    """c: independent columns of the residuals."""
    nodes: Float[Tensor, " s"]
    trace_weights: Float[Tensor, "s q"]
    """One column a probe: Σ f(nodes) · weights estimates tr f(K)."""
    residual_nodes: Float[Tensor, " t"]
    residual_weights: Float[Tensor, " t"]
    """Σ f(nodes) · weights is rᵀ f(K) r, summed over the columns."""

    @classmethod
    def of_rows(cls, rows: Float[Tensor, "n p"], residuals: Float[Tensor, "n c"]) -> Self:
        """From explicit rows, exactly: an eigendecomposition of the smaller of JJᵀ and JᵀJ."""
        n, p = rows.shape
        if p >= n:
            values, vectors = eigendecomposition(kernel(rows, rows))
            return cls.of_eigenvectors(values, vectors, residuals)
        values, coordinates = _from_primal(rows, residuals)
        # K has N − p more eigenvalues, all zero.
        left = residuals.square().sum() - coordinates.sum()
        weights = torch.cat([values.new_tensor([n - p]), torch.ones_like(values)])
        values = torch.cat([values.new_zeros(1), values])
        coordinates = torch.cat([left.clamp(min=0)[None], coordinates])
        return cls(n, residuals.shape[1], values, weights[:, None], values, coordinates)

    @classmethod
    def of_eigenvectors(
        cls,
        values: Float[Tensor, " n"],
        vectors: Float[Tensor, "n n"],
        residuals: Float[Tensor, "n c"],
    ) -> Self:
        """From the eigendecomposition of K itself."""
        values = values.clamp(min=0)
        coordinates = (vectors.T @ residuals).square().sum(dim=1)
        weights = torch.ones_like(values)[:, None]
        return cls(len(values), residuals.shape[1], values, weights, values, coordinates)

    @classmethod
    def of_operator(
        cls,
        operator: KernelOperator,
        residuals: Float[Tensor, "n c"],
        *,
        steps: int = LANCZOS_STEPS,
        seed: int = 0,
    ) -> Self:
        """From products with K: an estimate, whose spread :meth:`logdet` reports."""
        spectrum = estimate_spectrum(operator, steps=steps, seed=seed)
        krylov = KrylovBasis(operator, residuals)
        krylov.grow_to(steps)
        system = ritz_system(krylov)
        weights = system.coordinates.square().sum(dim=1)
        return cls(
            operator.n,
            residuals.shape[1],
            spectrum.nodes.clamp(min=0),
            spectrum.weights,
            system.eigenvalues.clamp(min=0),
            weights,
        )

    @property
    def largest(self) -> float:
        """λ_max, or the largest Ritz value."""
        return float(torch.maximum(self.nodes.max(), self.residual_nodes.max()))

    def quadratic(self, ratio: Tensor) -> Tensor:
        """rᵀ(K + ρI)⁻¹r, summed over the columns."""
        return (self.residual_weights / (self.residual_nodes + ratio)).sum()

    def logdet(self, ratio: Tensor) -> tuple[Tensor, float]:
        """log det(K + ρI) and its standard error over the probes, 0 where it is exact."""
        per_probe = (self.nodes + ratio).log() @ self.trace_weights
        q = per_probe.numel()
        spread = float(per_probe.detach().std() / math.sqrt(q)) if q > 1 else 0.0
        return per_probe.mean(), spread

    def log_marginal_likelihood(self, outputscale: float, noise: float) -> tuple[float, float]:
        """log N(r | 0, sK + σ²I), summed over the columns, in nats, and its standard error."""
        ratio = torch.tensor(noise / outputscale, dtype=torch.float64)
        logdet, spread = self.logdet(ratio)
        scale = self.rows * math.log(2 * math.pi * outputscale)
        value = self.quadratic(ratio) / outputscale + self.columns * (scale + logdet)
        return -0.5 * float(value), 0.5 * self.columns * spread


def _from_primal(
    rows: Float[Tensor, "n p"], residuals: Float[Tensor, "n c"]
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """K's p leading eigenvalues and the residuals' squares along them, from JᵀJ."""
    values, vectors = eigendecomposition(primal(rows))
    moments = (vectors.T @ transposed_times(rows, residuals)).square().sum(dim=1)
    # Directions that rounding alone fills carry nothing of the residuals.
    clear = values > values[-1] * torch.finfo(torch.float64).eps * len(values)
    coordinates = torch.where(clear, moments / values.where(clear, torch.ones_like(values)), 0.0)
    return values.clamp(min=0), coordinates
