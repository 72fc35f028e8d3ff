"""Deflating preconditioners for conjugate gradients: the largest eigenvalues are made alike.

From approximate eigenpairs (U, Λ) of K, with τ the smallest value kept:

    P⁻¹ = U ((τ + ridge) (Λ + ridge)⁻¹ − I) Uᵀ + I

Its root has the same form, with the square root of the bracketed ratio. One set of pairs serves
every ridge of a path. Nyström gives the pairs from some columns of K (Frangella, Tropp & Udell
2023, "Randomized Nyström preconditioning", with uniform columns, which do as well as cleverer ones
on these kernels); a block Krylov basis gives the leading Ritz pairs.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.eigensystem import Eigensystem
from pipeline.solvers.krylov import KrylovBasis
from pipeline.solvers.operator import DenseKernel, KernelOperator, random_block
from pipeline.types import InputError


@dataclass(frozen=True)
class Deflation:
    """Approximate leading eigenpairs of K."""

    vectors: Float[Tensor, "n r"]
    """Orthonormal columns."""
    values: Float[Tensor, " r"]
    """Ascending, positive."""

    def root(self, operator: KernelOperator, ridge: float) -> "DeflationRoot":
        """P^{-1/2} at one ridge, as conjugate gradients take it."""
        shrunk = ((self.values[0] + ridge) / (self.values + ridge)).sqrt() - 1
        return DeflationRoot(operator, self.vectors, shrunk)


@dataclass(frozen=True)
class DeflationRoot:
    """R ↦ R + U s (UᵀR)."""

    operator: KernelOperator
    vectors: Float[Tensor, "n r"]
    shrunk: Float[Tensor, " r"]

    def __call__(self, R: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """P^{-1/2}R."""
        return R + self.vectors @ (self.shrunk[:, None] * self.operator.inner(self.vectors, R))


def nystrom(operator: KernelOperator, rank: int, *, seed: int = 0) -> Deflation:
    """Eigenpairs of K's Nyström approximation from ``rank`` columns drawn uniformly."""
    if not isinstance(operator, DenseKernel):
        raise InputError("Nyström needs K's columns; use leading_pairs for a matrix-free kernel.")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(operator.n, generator=generator)[:rank].sort().values
    columns = operator.K[:, chosen.to(operator.device)].double()
    corner = columns[chosen.to(operator.device)]
    # The shift keeps the factorization alive on a numerically singular corner.
    shift = max(operator.error, 1e-15) * float(corner.diagonal().sum())
    corner.diagonal().add_(shift)
    L = torch.linalg.cholesky((corner + corner.T) / 2)
    B = torch.linalg.solve_triangular(L, columns.T, upper=False)
    values, rotation = torch.linalg.eigh(B @ B.T)
    kept = values - shift > values[-1] * 1e-12
    vectors = B.T @ (rotation[:, kept] / values[kept].sqrt())
    return Deflation(vectors, values[kept] - shift)


def leading_pairs(
    operator: KernelOperator, rank: int, *, block: int = 16, seed: int = 0
) -> Deflation:
    """About ``rank`` leading Ritz pairs of a block Krylov basis three times as large."""
    krylov = KrylovBasis(operator, random_block(operator, min(block, operator.n), seed))
    while not krylov.exhausted and krylov.products_size < 3 * rank:
        krylov.grow()
    values, rotation = torch.linalg.eigh(krylov.projected)
    return _positive(krylov.vectors @ rotation[:, -rank:], values[-rank:])


def deflation_from(system: Eigensystem, rank: int) -> Deflation:
    """The leading Ritz pairs of an eigensystem already at hand."""
    values = system.eigenvalues[-rank:]
    vectors = (
        system.basis[:, -rank:]
        if system.rotation is None
        else system.basis @ system.rotation[:, -rank:]
    )
    return _positive(vectors, values)


def _positive(vectors: Float[Tensor, "n r"], values: Float[Tensor, " r"]) -> Deflation:
    kept = values > values[-1] * 1e-12
    return Deflation(vectors[:, kept].contiguous(), values[kept])
