"""Random rows × random columns of every weight: the sketch that saves most arithmetic.

Of a convolution's or linear layer's weight, random output channels × random input channels are
kept, with all kernel positions of each pair: both factors of the gradient are cut down before they
are multiplied. An entry is kept with probability (a/rows)·(b/groups), hence its weight
√(rows·groups / (a·b)). Entries of a row come together, so the kernel varies more from seed to seed
than with ``uniform`` of the same size.
"""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from pipeline.config import Options, Seed
from pipeline.sketch.base import ElementSketch, checked_size, parameter_count, parameter_slots
from pipeline.sketch.ranks import Kept, Matrix, choose, clamp, matrix_view


class BlockOptions(Options):
    """Random rows × random columns of every weight."""

    kind: Literal["block"] = "block"
    size: int | None = Field(default=None, gt=0)
    """Most parameters to keep: whole rows and columns may come out a few short of it."""
    seed: Seed = 0
    """Seed of the rows and columns."""


def build(options: BlockOptions, model: nn.Module) -> ElementSketch:
    """The blocks of ``model``'s parameters that ``options`` describe."""
    total = parameter_count(model)
    size = checked_size(options.size, total)
    matrices = [matrix_view(slot, grouped=True) for slot in parameter_slots(model)]
    rng = np.random.default_rng(options.seed)
    parts = choose(matrices, size, _keep)
    indices = [_positions(kept, rng) for kept in parts]
    weights = [np.full(kept.size, (kept.matrix.slot.numel / kept.size) ** 0.5) for kept in parts]
    return ElementSketch(
        kind=options.kind,
        seed=options.seed,
        total=total,
        indices=torch.from_numpy(np.concatenate(indices)),
        column_weights=torch.from_numpy(np.concatenate(weights)),
        prefix_closed=False,
    )


def _keep(matrix: Matrix, share: float) -> Kept:
    """The same share of rows as of columns, as nearly as whole numbers allow."""
    groups = clamp(share**0.5 * matrix.groups, matrix.groups)
    rows = clamp(share * matrix.rows * matrix.groups / groups, matrix.rows)
    return Kept(matrix, rows, groups)


def _positions(kept: Kept, rng: np.random.Generator) -> np.ndarray:
    """Positions of the kept entries in the network, row by row."""
    matrix = kept.matrix
    rows = np.sort(rng.choice(matrix.rows, size=kept.rows, replace=False))
    groups = np.sort(rng.choice(matrix.groups, size=kept.groups, replace=False))
    columns = (groups[:, None] * matrix.width + np.arange(matrix.width)).reshape(-1)
    entries = rows[:, None] * (matrix.groups * matrix.width) + columns
    positions: np.ndarray = matrix.slot.start + entries.reshape(-1)
    return positions
