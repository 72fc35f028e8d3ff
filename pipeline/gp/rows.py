"""Products with rows of J in float64, whatever J is stored in.

Rows keep the type they were computed in; products go through float64 copies of some columns at a
time, so that the kernel carries the rounding of J and no more.
"""

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""Float64 bytes of one chunk of columns: full GEMM speed, small beside J."""


def kernel(left: Float[Tensor, "m p"], right: Float[Tensor, "n p"]) -> Float[Tensor, "m n"]:
    """left · rightᵀ in float64; symmetric to the last bit where both are the same rows."""
    if left.dtype == torch.float64:
        K = left @ right.T
    else:
        K = left.new_zeros((len(left), len(right)), dtype=torch.float64)
        width = max(1, CHUNK_BYTES // (8 * max(len(left) + len(right), 1)))
        for start in range(0, left.shape[1], width):
            columns = slice(start, start + width)
            K.addmm_(left[:, columns].double(), right[:, columns].double().T)
    return (K + K.T) / 2 if left is right else K


def primal(rows: Float[Tensor, "n p"]) -> Float[Tensor, "p p"]:
    """JᵀJ in float64, the Fisher matrix of unit noise."""
    columns = rows.T
    return kernel(columns, columns)


def transposed_times(rows: Float[Tensor, "n p"], U: Float[Tensor, "n c"]) -> Float[Tensor, "p c"]:
    """JᵀU in float64."""
    return kernel(rows.T, U.T)


def times(rows: Float[Tensor, "n p"], V: Float[Tensor, "p c"]) -> Float[Tensor, "n c"]:
    """J V in float64."""
    return kernel(rows, V.T)


def squared_norms(rows: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
    """Squared norms of the rows, the kernel's diagonal, in float64."""
    return pairwise(rows, rows)


def pairwise(left: Float[Tensor, "n p"], right: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
    """Each row of left times the same row of right, in float64."""
    if left.dtype == torch.float64:
        return (left * right).sum(dim=1)
    total = left.new_zeros(len(left), dtype=torch.float64)
    width = max(1, CHUNK_BYTES // (8 * max(len(left), 1)))
    for start in range(0, left.shape[1], width):
        columns = slice(start, start + width)
        total += (left[:, columns].double() * right[:, columns].double()).sum(dim=1)
    return total
