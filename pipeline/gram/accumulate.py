"""Adding panels to kernel blocks on the CPU, in place and at GEMM speed.

BLAS is column-major: a row-major panel (n, w) is its transpose (w, n) without a copy. Kernels are
Fortran-ordered here, so that BLAS adds to them in place; their transposes are what callers get.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas


def new_block(rows: int, columns: int) -> np.ndarray:
    """Zeros for a block (rows, columns), Fortran-ordered float32; pages are touched when used."""
    return np.zeros((rows, columns), dtype=np.float32, order="F")


def add_triangle(block: np.ndarray, panel: np.ndarray) -> None:
    """Add ``panel @ panel.T`` to the lower triangle of ``block`` (n, n), in place."""
    blas.ssyrk(1.0, panel.T, beta=1.0, c=block, trans=1, lower=1, overwrite_c=1)


def add_product(block: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Add ``left @ right.T`` to ``block`` (n, m), in place."""
    blas.sgemm(1.0, left.T, right.T, beta=1.0, c=block, trans_a=1, overwrite_c=1)


def add_inner(block: np.ndarray, panel: np.ndarray) -> None:
    """Add ``panel.T @ panel`` to the lower triangle of ``block`` (p, p), in place."""
    blas.ssyrk(1.0, panel.T, beta=1.0, c=block, trans=0, lower=1, overwrite_c=1)


def add_squared_norms(norms: np.ndarray, panel: np.ndarray) -> None:
    """Add every row's squared norm to ``norms``, float64."""
    norms += np.einsum("ij,ij->i", panel, panel)


@dataclass
class Sums:
    """What a pass accumulates, without the weights' common factors."""

    triangle: np.ndarray
    """Lower triangle of K (n, n), Fortran order: row by row, its transpose's upper one."""
    cross: np.ndarray
    """K (n, m) of the training rows with all others, Fortran order; m may be 0."""
    norms: np.ndarray
    """Squared norms of the other rows, float64 (m,)."""

    @classmethod
    def zeros(cls, n: int, m: int) -> "Sums":
        """Nothing added yet."""
        return cls(new_block(n, n), new_block(n, m), np.zeros(m))

    def add(self, panel: np.ndarray) -> None:
        """Add one panel of all rows (n + m, w), the training rows first."""
        n = len(self.triangle)
        add_triangle(self.triangle, panel[:n])
        if len(panel) > n:
            add_product(self.cross, panel[:n], panel[n:])
            add_squared_norms(self.norms, panel[n:])

    def copy(self) -> "Sums":
        """A copy to finish while the pass goes on."""
        return Sums(self.triangle.copy("F"), self.cross.copy("F"), self.norms.copy())
