"""Column weights W of K = Φ W² Φᵀ, split into what a product needs and what can wait.

A weight common to all columns (``uniform``: √(P/p) / scale) is one factor on the finished kernel.
Weights that differ multiply the panels; they are first divided by their largest, so that 16-bit
panels stay in range.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.types import InputError


@dataclass(frozen=True)
class Weighting:
    """``weights = factor · columns``; ``columns`` is None where all weights are equal."""

    factor: float
    columns: Tensor | None

    def apply(self, panel: Tensor, columns: slice) -> None:
        """Multiply a panel's columns in place with their part of the weights."""
        if self.columns is not None:
            panel.mul_(self.columns[columns].to(panel.device))


def weighting(source: Any) -> Weighting:
    """The split of a panel source's weights; refused unless finite and positive."""
    weights = np.asarray(source.weights(), dtype=np.float64)
    if weights.shape != (source.shape[1],):
        raise InputError(f"weights must have shape ({source.shape[1]},), got {weights.shape}.")
    if not (np.isfinite(weights) & (weights > 0)).all():
        column = int(np.argmin(np.isfinite(weights) & (weights > 0)))
        raise InputError(f"the weight of column {column} is {weights[column]}: must be positive.")
    factor = float(weights.max())
    if (weights == factor).all():
        return Weighting(factor, None)
    return Weighting(factor, torch.from_numpy((weights / factor).astype(np.float32)))


def weightings_of(sources: Sequence[Any]) -> list[Weighting]:
    """The splits of all sources' weights; refused where they belong to different sketches.

    Stores differ in their scale, a common factor; columns weighted differently are not the same.
    """
    found = [weighting(source) for source in sources]
    first = found[0].columns
    for position, own in enumerate(found):
        same = own.columns is first or (
            own.columns is not None and first is not None and torch.equal(own.columns, first)
        )
        if not same:
            raise InputError(
                f"the features number {position + 1} carry other column weights than the first: "
                "they come from different sketches. Featurize both with one sketch."
            )
    return found
