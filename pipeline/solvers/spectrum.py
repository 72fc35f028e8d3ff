"""What a few products tell of K's spectrum: λ_max from above, λ_min, the effective dimension.

Block Lanczos from random signs. λ_max is the largest Ritz value plus its residual norm: some
eigenvalue lies within the residual of a Ritz value, and a random block misses the largest with
probability zero, so a step 1/λ_max never diverges. Traces of functions of K come from the block's
Gauss quadrature (Ubaru, Chen & Saad 2017, "Fast estimation of tr(f(A)) via stochastic Lanczos
quadrature"), with a standard error over the probes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.eigh import eigendecomposition
from pipeline.solvers.krylov import KrylovBasis
from pipeline.solvers.operator import DenseKernel, KernelOperator, random_block
from pipeline.solvers.refusal import check_definite

PROBES = 6
"""Random columns: enough for a standard error of the trace, few beside the targets."""

STEPS = 24
"""Block steps at most: quadrature of degree 47 per probe."""

EXACT_ROWS = 400
"""Up to here an eigendecomposition costs less than estimating."""


@dataclass(frozen=True)
class Spectrum:
    """Extreme eigenvalues and a quadrature for traces."""

    lambda_max: float
    """An upper bound up to rounding."""
    lambda_min: float
    """Exact, or the smallest Ritz value: an upper bound."""
    nodes: Float[Tensor, " s"]
    weights: Float[Tensor, "s q"]
    """One column a probe; tr f(K) is estimated by f(nodes) · weights, averaged over probes."""
    exact: bool
    """Whether the nodes are K's eigenvalues."""

    def effective_dimension(self, ridge: float) -> tuple[float, float]:
        """tr K(K + ridge·I)⁻¹ and its standard error: the number of directions fitted."""
        nodes = self.nodes.clamp(min=0)
        share = torch.where(nodes > 0, nodes / (nodes + ridge), torch.zeros_like(nodes))
        per_probe = share @ self.weights
        q = per_probe.numel()
        stderr = float(per_probe.std() / q**0.5) if q > 1 and not self.exact else 0.0
        return float(per_probe.mean()), stderr

    def condition(self, ridge: float) -> float:
        """(λ_max + ridge) / (λ_min + ridge); infinite where the denominator is not positive."""
        smallest = self.lambda_min + ridge
        return (self.lambda_max + ridge) / smallest if smallest > 0 else float("inf")


def exact_spectrum(eigenvalues: Float[Tensor, " n"]) -> Spectrum:
    """The spectrum that an eigendecomposition found."""
    return Spectrum(
        lambda_max=float(eigenvalues.max()),
        lambda_min=float(eigenvalues.min()),
        nodes=eigenvalues,
        weights=torch.ones_like(eigenvalues)[:, None],
        exact=True,
    )


def spectrum_of(operator: KernelOperator, *, seed: int = 0) -> Spectrum:
    """The exact spectrum of a small dense kernel, else an estimate."""
    if isinstance(operator, DenseKernel) and operator.n <= EXACT_ROWS:
        eigenvalues, vectors = eigendecomposition(operator.K)
        check_definite(operator, eigenvalues, vectors[:, 0])
        return exact_spectrum(eigenvalues)
    return estimate_spectrum(operator, seed=seed)


def estimate_spectrum(operator: KernelOperator, *, steps: int = STEPS, seed: int = 0) -> Spectrum:
    """λ_max, λ_min and a quadrature, from ``steps`` products with a few random columns."""
    krylov = KrylovBasis(operator, random_block(operator, min(PROBES, operator.n), seed))
    while krylov.products_size == 0 or not (krylov.exhausted or steps <= 0):
        krylov.grow()
        steps -= 1
    nodes, rotation = torch.linalg.eigh(krylov.projected)
    check_definite(operator, nodes, krylov.vectors @ rotation[:, 0])
    start = krylov.coefficients
    return Spectrum(
        lambda_max=float(nodes[-1]) + float(krylov.residual_norms(rotation[:, -1:])[0]),
        lambda_min=float(nodes[0]),
        nodes=nodes,
        weights=(rotation[: start.shape[0]].T @ start).square(),
        exact=False,
    )
