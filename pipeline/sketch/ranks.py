"""How many rows and columns of every parameter a product sketch keeps, for a given total.

A parameter of two dimensions and more is a matrix of ``rows`` × ``groups``, each group of ``width``
neighbouring columns; below it is a single column. Every parameter keeps about the same share f of
its entries, as a product of whole rows and whole groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipeline.sketch.base import ParameterSlot
from pipeline.types import InputError


@dataclass(frozen=True)
class Matrix:
    """A parameter as a matrix of rows × groups of columns."""

    slot: ParameterSlot
    rows: int
    groups: int
    width: int

    @property
    def is_vector(self) -> bool:
        """Whether the parameter has fewer than two dimensions."""
        return len(self.slot.shape) < 2


@dataclass(frozen=True)
class Kept:
    """The part of a matrix that is kept: numbers of rows and of groups."""

    matrix: Matrix
    rows: int
    groups: int

    @property
    def size(self) -> int:
        """Columns of the sketch that it takes."""
        return self.rows * self.groups * self.matrix.width


Rule = Callable[[Matrix, float], Kept]
"""The part of a matrix to keep for a share of its entries; grows with the share."""


def matrix_view(slot: ParameterSlot, grouped: bool) -> Matrix:
    """The matrix that a parameter is; ``grouped`` takes all kernel positions of a channel pair."""
    if len(slot.shape) < 2:
        return Matrix(slot, slot.numel, 1, 1)
    rows = slot.shape[0]
    groups = slot.shape[1] if grouped else slot.numel // rows
    return Matrix(slot, rows, groups, slot.numel // (rows * groups))


def choose(matrices: Sequence[Matrix], size: int, rule: Rule) -> list[Kept]:
    """What to keep of every matrix: the largest common share that takes at most ``size`` columns.

    What whole rows and groups leave over goes to the vectors, so that the sum is ``size`` exactly
    wherever they have room. Raises :class:`InputError` if not even one of each fits.
    """
    least = sum(rule(matrix, 0.0).size for matrix in matrices)
    if size < least:
        raise InputError(
            f"{size} columns cannot hold one product of each parameter, which takes {least}.",
            "sketch.size",
        )
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        fits = sum(rule(matrix, middle).size for matrix in matrices) <= size
        low, high = (middle, high) if fits else (low, middle)
    whole = [rule(matrix, 1.0) for matrix in matrices]
    if sum(kept.size for kept in whole) <= size:
        return whole
    return _filled([rule(matrix, low) for matrix in matrices], size)


def _filled(parts: list[Kept], size: int) -> list[Kept]:
    left = size - sum(kept.size for kept in parts)
    filled = []
    for kept in parts:
        extra = min(left, kept.matrix.rows - kept.rows) if kept.matrix.is_vector else 0
        filled.append(replace(kept, rows=kept.rows + extra))
        left -= extra
    return filled


def clamp(value: float, limit: int) -> int:
    """The nearest whole number from 1 to ``limit``."""
    return max(1, min(limit, round(value)))
