"""Kernels that no ridge regression should run on, refused with the row that shows why."""

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.operator import DenseKernel, KernelOperator, float64_tiles, tile_rows
from pipeline.solvers.row_kernel import RowKernel
from pipeline.types import InputError

INDEFINITE = 100
"""Rounding errors that an eigenvalue must lie below zero to count as negative."""


class KernelError(InputError):
    """A matrix that is no kernel: of the wrong shape, not finite, not symmetric, indefinite."""


class RidgeBelowRoundingError(InputError):
    """λ_min(K) + ridge lies under the rounding error of K's entries: the answer would be noise."""

    def __init__(self, ridge: float, floor: float, lambda_min: float | None = None) -> None:
        self.ridge = ridge
        self.floor = floor
        smallest = "" if lambda_min is None else f" (λ_min(K) is {lambda_min:.3g})"
        super().__init__(
            f"the ridge {ridge:.3g} is below what K's rounding allows{smallest}: the solution "
            f"would be noise. Use a ridge of at least {floor:.3g} (absolute), or a kernel in "
            "float64."
        )


def check_targets(operator: KernelOperator, Y: Float[Tensor, "n k"]) -> None:
    """Refuse targets of another length, or not finite, naming the row."""
    held = operator.rows.stop - operator.rows.start
    if Y.shape[0] != held:
        raise InputError(f"K has {held} rows and Y has {Y.shape[0]}: they must be the same.")
    if not bool(torch.isfinite(Y).all()):
        row, column = (int(i) for i in (~torch.isfinite(Y)).nonzero()[0])
        raise InputError(f"Y[{row}, {column}] is {float(Y[row, column])}: targets must be finite.")


def check_kernel(K: Float[Tensor, "n n"]) -> None:
    """Refuse what is no kernel: non-square, non-finite, non-symmetric, or visibly indefinite.

    Visibly: a diagonal entry ≤ 0 with a non-zero row, or K_ij² > K_ii K_jj, the 2×2 minors. What
    these miss, a Cholesky factorization or a negative Ritz value shows later.
    """
    if K.ndim != 2 or K.shape[0] != K.shape[1]:
        raise KernelError(f"K must be square, found shape {tuple(K.shape)}.")
    if K.shape[0] == 0:
        raise KernelError("K has no rows: at least one training sample is needed.")
    diagonal = K.diagonal().double()
    _check_finite(K)
    if bool((diagonal < 0).any()):
        i = int((diagonal < 0).nonzero()[0])
        raise KernelError(
            f"K is indefinite: its diagonal entry {i} is {float(diagonal[i]):.6g}, below zero."
        )
    if not bool(diagonal.any()) and not bool(K.any()):
        raise KernelError(
            "K is singular: every entry is zero (first at row 0). Are the features zero?"
        )
    _check_pairs(K, diagonal)


def check_rows(operator: RowKernel) -> None:
    """Refuse rows of a kernel that are not finite, or a diagonal entry below zero.

    One pass. Symmetry would take the other workers' rows; what is missed shows as a negative Ritz
    value later.
    """
    first = operator.rows.start
    for rows, tile in float64_tiles(operator.K_rows):
        _check_finite_tile(tile, first + rows.start)
        diagonal = tile.diagonal(offset=first + rows.start)[: len(tile)]
        if bool((diagonal < 0).any()):
            i = int((diagonal < 0).nonzero()[0])
            raise KernelError(
                f"K is indefinite: its diagonal entry {first + rows.start + i} is "
                f"{float(diagonal[i]):.6g}, below zero."
            )


def check_definite(
    operator: KernelOperator, eigenvalues: Float[Tensor, " s"], lowest: Float[Tensor, " n"]
) -> None:
    """Refuse an eigenvalue (ascending; Ritz values will do) far below zero, naming its row."""
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if smallest < -max(INDEFINITE * rounding_floor(operator, largest), 1e-10 * largest):
        row = operator.rows.start + int(lowest.abs().argmax())
        raise KernelError(
            f"K is indefinite: it has an eigenvalue of {smallest:.3g} or less beside λ_max = "
            f"{largest:.3g}, whose eigenvector is largest at row {row}. A kernel of features has "
            "none; rounding alone would not show."
        )


def rounding_floor(operator: KernelOperator, lambda_max: float) -> float:
    """Size of the error that rounding put into K, as an eigenvalue: ε λ_max.

    Rounding moves each entry by at most ε|K_ij|/2; for a kernel with entries of one sign that is
    at most ε λ_max / 2 in spectral norm, and summing in float32 adds as much again.
    """
    return operator.error * lambda_max


def check_ridge(
    operator: KernelOperator, ridge: float, lambda_max: float, lambda_min: float | None = None
) -> None:
    """Refuse a ridge with λ_min(K) + ridge under K's rounding error.

    A ridge above the error needs no λ_min, K being a kernel. Below it, λ_min decides: it is
    given, or K + (ridge − error)·I must have a Cholesky factor.
    """
    if not ridge >= 0 or ridge == float("inf"):
        raise InputError(f"a ridge must be finite and at least 0, got {ridge}.")
    floor = rounding_floor(operator, lambda_max)
    if lambda_min is not None:
        if lambda_min + ridge < floor:
            raise RidgeBelowRoundingError(ridge, floor - min(lambda_min, 0.0), lambda_min)
    elif ridge < floor and not _has_factor(operator, ridge - floor):
        raise RidgeBelowRoundingError(ridge, floor)


def _has_factor(operator: KernelOperator, shift: float) -> bool:
    """Whether K + shift·I is positive definite, where K's entries are at hand."""
    if not isinstance(operator, DenseKernel):
        return False
    A = operator.K.to(torch.float64, copy=True)
    A.diagonal().add_(shift)
    return int(torch.linalg.cholesky_ex(A).info) == 0


def _check_finite(K: Tensor) -> None:
    # One pass: a sum is finite only if every entry is (or two infinities of float64 overflow).
    for start in range(0, K.shape[0], step := tile_rows(K.shape[1], K.device)):
        _check_finite_tile(K[start : start + step], start)


def _check_finite_tile(tile: Tensor, first: int) -> None:
    if not bool(torch.isfinite(tile).all()):
        row, column = (int(i) for i in (~torch.isfinite(tile)).nonzero()[0])
        raise KernelError(
            f"K[{first + row}, {column}] is {float(tile[row, column])}: every entry must be "
            f"finite. Look at the features of samples {first + row} and {column}."
        )


def _check_pairs(K: Tensor, diagonal: Tensor) -> None:
    """Symmetry and 2×2 minors, by row tiles; tolerances are K's own rounding."""
    slack = 64 * torch.finfo(K.dtype).eps
    root = diagonal.sqrt()
    scale = float(diagonal.max())
    step = tile_rows(K.shape[1], K.device)
    for start in range(0, K.shape[0], step):
        tile = K[start : start + step]
        skew = (tile - K[:, start : start + step].T).abs()
        bound = (root[start : start + step, None] * root).to(tile.dtype)
        worst = int(skew.argmax())
        row, column = divmod(worst, K.shape[1])
        if float(skew[row, column]) > slack * max(float(bound[row, column]), scale * slack):
            i = start + row
            raise KernelError(
                f"K is not symmetric: K[{i}, {column}] = {float(K[i, column]):.6g} but "
                f"K[{column}, {i}] = {float(K[column, i]):.6g}."
            )
        excess = tile.abs() - bound * (1 + slack)
        row, column = divmod(int(excess.argmax()), K.shape[1])
        if float(excess[row, column]) > slack * scale:
            i = start + row
            raise KernelError(
                f"K is indefinite: K[{i}, {column}]² exceeds K[{i}, {i}] K[{column}, {column}] "
                f"({float(tile[row, column]):.6g} against diagonals {float(diagonal[i]):.6g} and "
                f"{float(diagonal[column]):.6g})."
            )
