"""Accumulating panels into kernel blocks on the CPU, in place and at GEMM speed.

BLAS is column-major: a row-major panel (n, w) is its transpose (w, n) without a copy. Kernels are
Fortran-ordered here, so that BLAS adds to them in place; their transposes are what callers get.
"""

import numpy as np
from scipy.linalg import blas

TILE = 1024
"""Rows and columns of the tiles in which the triangle is mirrored."""


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


def mirror_upper(K: np.ndarray) -> None:
    """Copy the upper triangle of ``K`` (n, n) onto the lower, in place, tile by tile."""
    n = len(K)
    for i in range(0, n, TILE):
        rows = slice(i, min(i + TILE, n))
        for j in range(0, i, TILE):
            columns = slice(j, j + TILE)
            K[rows, columns] = K[columns, rows].T
        tile = K[rows, rows]
        lower = np.tril_indices(len(tile), -1)
        tile[lower] = tile.T[lower]
