"""The eigendecomposition of K: every ridge and stopping time exactly, where n allows.

On CPU through NumPy's 64-bit LAPACK: torch's ``eigh`` crashes there from n = 32,767 on (32-bit
workspace sizes), and NumPy's is about twice as fast on large matrices.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.eigensystem import Eigensystem
from pipeline.solvers.filters import ridge_filter
from pipeline.solvers.operator import DenseKernel, KernelOperator
from pipeline.solvers.solution import Solution
from pipeline.types import InputError


def eigendecomposition(K: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Eigenvalues (ascending) and orthonormal eigenvectors of K in float64."""
    if K.is_cuda:
        values, vectors = torch.linalg.eigh(K.double())
        return values, vectors
    found = np.linalg.eigh(K.numpy().astype(np.float64))
    return torch.from_numpy(found.eigenvalues), torch.from_numpy(found.eigenvectors)


def eigh_system(operator: KernelOperator, Y: Float[Tensor, "n k"]) -> Eigensystem:
    """The exact eigensystem of K with the targets in its coordinates."""
    values, vectors = eigendecomposition(dense(operator, "eigh"))
    return Eigensystem(
        eigenvalues=values, basis=vectors, rotation=None, coordinates=vectors.T @ Y, exact=True
    )


def eigh(operator: KernelOperator, Y: Float[Tensor, "n k"], ridge: float) -> Solution:
    """(K + ridge·I)⁻¹Y from the eigendecomposition."""
    system = eigh_system(operator, Y)
    filters = ridge_filter(system.eigenvalues, ridge)[:, None]
    return Solution(system.dual_weights(filters), iterations=0, converged=True)


def dense(operator: KernelOperator, solver: str) -> Float[Tensor, "n n"]:
    """K's entries, which direct solvers need."""
    if not isinstance(operator, DenseKernel):
        raise InputError(
            f"the solver {solver!r} needs K in memory, and this kernel is known by its products "
            "only. Use 'lanczos', 'cg' or 'nesterov'."
        )
    return operator.K
