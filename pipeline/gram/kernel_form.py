"""Centring and normalizing features, done to their kernel afterwards.

Centring subtracts the training rows' mean feature μ: with K = ⟨φ, φ′⟩ and row means over the
training rows, ``⟨φ − μ, φ′ − μ⟩ = K − mean_j K(x, x_j) − mean_i K(x_i, x′) + mean_ij K``. It takes
out the direction that all samples share. Normalizing divides by the features' norms,
``K(x, x′) / √(K(x, x) K(x′, x′))``, so that samples with large gradients count no more than others.
Centring comes first. Kernels are changed in place, row by row, so they may be mapped from disk.
"""

import numpy as np

from pipeline.types import InputError

Blocks = dict[str, np.ndarray]

ROWS_AT_ONCE = 512


def center_blocks(K: np.ndarray, crosses: Blocks, norms: Blocks) -> None:
    """Centre ``K`` (n, n), each (m, n) of ``crosses`` and the squared norms (m,) of their rows."""
    training_means = _row_means(K)
    mean = float(training_means.mean())
    for name, cross in crosses.items():
        means = _row_means(cross)
        norms[name] += mean - 2 * means
        _subtract(cross, means, training_means, mean)
    _subtract(K, training_means, training_means, mean)


def normalize_blocks(K: np.ndarray, crosses: Blocks, norms: Blocks) -> None:
    """Scale ``K`` to a unit diagonal and the crosses alike; ``norms`` become ones.

    Raises :class:`InputError` naming the first row whose feature is zero.
    """
    training = inverse_norms(np.diagonal(K).astype(np.float64), "training")
    for name, cross in crosses.items():
        scale_block(cross, inverse_norms(norms[name], name), training)
        norms[name][:] = 1.0
    scale_block(K, training, training)


def _row_means(block: np.ndarray) -> np.ndarray:
    return np.concatenate([block[rows].mean(axis=1, dtype=np.float64) for rows in _tiles(block)])


def _subtract(block: np.ndarray, rows: np.ndarray, columns: np.ndarray, mean: float) -> None:
    for tile in _tiles(block):
        block[tile] -= (rows[tile, None] + columns[None, :] - mean).astype(np.float32)


def scale_block(block: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Multiply ``block[i, j]`` in place with ``rows[i] * columns[j]``."""
    for tile in _tiles(block):
        block[tile] *= (rows[tile, None] * columns[None, :]).astype(np.float32)


def inverse_norms(squared: np.ndarray, name: str) -> np.ndarray:
    """1 / norm of every row; a zero row of the ``name`` features is refused."""
    if not (squared > 0).all():
        row = int(np.argmin(squared > 0))
        raise InputError(
            f"row {row} of the {name} features has squared norm {squared[row]:.3g} and cannot be "
            "normalized. Set kernel.normalize to false."
        )
    inverse: np.ndarray = 1 / np.sqrt(squared)
    return inverse


def _tiles(block: np.ndarray) -> list[slice]:
    return [slice(i, min(i + ROWS_AT_ONCE, len(block))) for i in range(0, len(block), ROWS_AT_ONCE)]
