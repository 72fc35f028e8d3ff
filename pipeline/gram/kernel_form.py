"""Centring and normalizing features, done to their kernel afterwards.

Centring subtracts the training rows' mean feature μ: with K = ⟨φ, φ′⟩ and means over the training
rows, ``⟨φ − μ, φ′ − μ⟩ = K − mean_j K(x, x_j) − mean_i K(x_i, x′) + mean_ij K``. It takes out the
direction that all samples share. Normalizing divides by the features' norms,
``K(x, x′) / √(K(x, x) K(x′, x′))``, so that samples with large gradients count no more than others.
Centring comes first. Kernels change in place, some rows at a time: they may be mapped from disk.
"""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.types import InputError

ROWS_AT_ONCE = 512


def center_blocks(
    K: Float[Tensor, "n n"], crosses: Mapping[str, Tensor], norms: Mapping[str, Tensor]
) -> None:
    """Centre ``K``, each (m, n) of ``crosses`` and the squared norms (m,) of their rows."""
    training_means = _row_means(K)
    mean = training_means.mean()
    for name, cross in crosses.items():
        means = _row_means(cross)
        norms[name].add_(mean - 2 * means)
        _subtract(cross, means, training_means - mean)
    _subtract(K, training_means, training_means - mean)


def normalize_blocks(
    K: Float[Tensor, "n n"], crosses: Mapping[str, Tensor], norms: Mapping[str, Tensor]
) -> None:
    """Scale ``K`` to a unit diagonal and the crosses alike; ``norms`` become ones.

    Raises :class:`InputError` naming the first row whose feature is zero.
    """
    training = inverse_norms(K.diagonal().double(), "training")
    for name, cross in crosses.items():
        scale_block(cross, inverse_norms(norms[name], name), training)
        norms[name].fill_(1.0)
    scale_block(K, training, training)


def inverse_norms(squared: Float[Tensor, " n"], name: str) -> Float[Tensor, " n"]:
    """1 / norm of every row; a zero row of the ``name`` features is refused."""
    if not bool((squared > 0).all()):
        row = int((squared > 0).int().argmin())
        raise InputError(
            f"row {row} of the {name} features has squared norm {float(squared[row]):.3g} and "
            "cannot be normalized. Set kernel.normalize to false."
        )
    return squared.rsqrt()


def scale_block(block: Tensor, rows: Float[Tensor, " m"], columns: Float[Tensor, " n"]) -> None:
    """Multiply ``block[i, j]`` in place with ``rows[i] * columns[j]``."""
    for tile in _tiles(block):
        block[tile] *= (rows[tile, None] * columns).to(block.dtype)


def _subtract(block: Tensor, rows: Tensor, columns: Tensor) -> None:
    for tile in _tiles(block):
        block[tile] -= (rows[tile, None] + columns).to(block.dtype)


def _row_means(block: Tensor) -> Tensor:
    return torch.cat([block[tile].mean(dim=1, dtype=torch.float64) for tile in _tiles(block)])


def _tiles(block: Tensor) -> Iterator[slice]:
    for start in range(0, len(block), ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)
