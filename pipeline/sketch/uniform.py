"""A uniform sample of the parameters, without replacement, in random order.

Every entry is kept with probability p/P, so one factor √(P/p) on all columns makes the kernel
unbiased, and the first q columns are a uniform sample of size q. The same seed with another size
gives a prefix of the same order: a larger sketch extends a smaller one.
"""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from pipeline.config import Options, Seed
from pipeline.sketch.base import ElementSketch, checked_size, parameter_count


class UniformOptions(Options):
    """A uniform sample of all parameters."""

    kind: Literal["uniform"] = "uniform"
    size: int | None = Field(default=None, gt=0)
    """Number of kept parameters; left out, 100,000 or all of a smaller network."""
    seed: Seed = 0
    """Seed of the sample and of its order."""


def build(options: UniformOptions, model: nn.Module) -> ElementSketch:
    """The sample of ``model``'s parameters that ``options`` describe."""
    total = parameter_count(model)
    size = checked_size(options.size, total)
    return ElementSketch(
        kind="uniform",
        seed=options.seed,
        total=total,
        indices=torch.from_numpy(random_order(total, options.seed)[:size].astype(np.int64)),
        column_weights=torch.full((size,), (total / size) ** 0.5, dtype=torch.float64),
        prefix_closed=True,
    )


def random_order(count: int, seed: int) -> np.ndarray:
    """A random permutation of ``range(count)``, in the smallest integer type that holds it."""
    # Half the memory of int64: at 1e8 parameters a worker permutes 400 MB, not 800.
    dtype = np.int32 if count <= np.iinfo(np.int32).max else np.int64
    return np.random.default_rng(seed).permutation(np.arange(count, dtype=dtype))
