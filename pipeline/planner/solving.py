"""What it takes to solve for the whole path once products with K are to be had."""

from dataclasses import dataclass
from typing import Literal

from pipeline.solvers.auto import EIGH_ROWS, EXPECTED_STEPS
from pipeline.solvers.eigensystem import CHUNK_COLUMNS

FLOAT64 = 8

TELESCOPIC_RIDGES = 12
"""Systems that a coarse-to-fine search solves one after another."""

CG_BLOCKS = 5
"""Blocks of n×k that conjugate gradients keep: solution, residual, direction, product, targets."""

BASIS_COPIES = 2
"""The Krylov basis and what is made from it."""

EIGH_MATRICES = 3
"""K in float64, its eigenvectors, and LAPACK's workspace."""

EIGH_FLOPS = 10.0
"""Times n³; a symmetric eigendecomposition with vectors."""


@dataclass(frozen=True, kw_only=True)
class SolveCost:
    """Totals over all workers."""

    method: Literal["eigh", "lanczos", "cg"]
    steps: int
    """Products of K with k vectors."""
    vector_bytes: int
    """Memory for what is kept beside K, in bytes; workers share it."""
    replicated_bytes: int = 0
    """What every worker keeps besides: a split's rows on the basis, and its predictions."""
    flops: float
    """Arithmetic beside the products."""

    def in_process(self, workers: int) -> int:
        """Bytes in each of some workers."""
        return self.vector_bytes // workers + self.replicated_bytes


def solve_costs(n: int, k: int, predicted: int = 0, *, dense: bool) -> list[SolveCost]:
    """The methods that apply, the preferred first; ``dense`` says that K is in one memory.

    ``predicted`` are the rows of the largest split that is predicted.
    """
    basis = min(n, EXPECTED_STEPS * k)
    lanczos = SolveCost(
        method="lanczos",
        steps=EXPECTED_STEPS,
        vector_bytes=BASIS_COPIES * n * basis * FLOAT64,
        replicated_bytes=BASIS_COPIES * predicted * (basis + CHUNK_COLUMNS) * FLOAT64,
        # Twice orthogonalized against everything before: 8nkj for the block after j columns.
        flops=4.0 * n * basis**2,
    )
    cg = SolveCost(
        method="cg",
        steps=EXPECTED_STEPS * TELESCOPIC_RIDGES,
        vector_bytes=CG_BLOCKS * n * k * FLOAT64,
        flops=10.0 * n * k * EXPECTED_STEPS * TELESCOPIC_RIDGES,
    )
    if not dense or (n > EIGH_ROWS["cpu"] and EXPECTED_STEPS * k <= n // 2):
        return [lanczos, cg]
    eigh = SolveCost(
        method="eigh",
        steps=0,
        vector_bytes=EIGH_MATRICES * n * n * FLOAT64,
        flops=EIGH_FLOPS * n**3,
    )
    return [eigh, lanczos, cg]
