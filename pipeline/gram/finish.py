"""From the sums of a pass to kernels: common factors, the other triangle, centring, norms."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.gram.kernel_form import center_blocks, normalize_blocks

DIAGONAL = "_diagonal"
"""``blocks[name + DIAGONAL]`` holds k(x, x) of the rows of a cross-kernel."""

TILE = 512
"""Rows and columns of the tiles in which the triangle is mirrored."""


@dataclass(frozen=True)
class Form:
    """The options that are applied to finished kernels."""

    center: bool = False
    normalize: bool = False


def finish(
    K: Tensor,
    crosses: Mapping[str, Tensor],
    norms: Mapping[str, Tensor],
    factors: Mapping[str, float],
    extra: float,
    form: Form,
) -> dict[str, Tensor]:
    """The named blocks, in the sums' own memory.

    ``K`` holds its lower triangle; ``factors`` are the common weights of ``"train"`` and of each
    other set of rows; ``extra`` multiplies every kernel (p/q for a prefix).
    """
    training = factors["train"]
    K *= extra * training**2
    mirror_lower(K)
    # Symmetric by now: of a Fortran-ordered K the transpose is the same, row by row in memory.
    K = K if K.is_contiguous() else K.T
    for name, cross in crosses.items():
        cross *= extra * training * factors[name]
        norms[name].mul_(extra * factors[name] ** 2)
    apply_form(K, crosses, norms, form)
    diagonals = {name + DIAGONAL: values for name, values in norms.items()}
    return {"train": K, **crosses, **diagonals}


def apply_form(
    K: Tensor, crosses: Mapping[str, Tensor], norms: Mapping[str, Tensor], form: Form
) -> None:
    """Centre, then normalize, as asked, in place."""
    if form.center:
        center_blocks(K, crosses, norms)
    if form.normalize:
        normalize_blocks(K, crosses, norms)


def mirror_lower(K: Tensor) -> None:
    """Copy the lower triangle of ``K`` (n, n) onto the upper, in place, tile by tile."""
    n = len(K)
    for i in range(0, n, TILE):
        rows = slice(i, min(i + TILE, n))
        for j in range(0, i, TILE):
            columns = slice(j, j + TILE)
            K[columns, rows] = K[rows, columns].T
        tile = K[rows, rows]
        tile.copy_(torch.tril(tile) + torch.tril(tile, -1).T)
