"""A sample of every layer, without replacement: no layer is missed or crowded out.

Of a layer with P_s parameters p_s are kept, each with weight √(P_s/p_s). ``proportional`` gives
every layer its share of the columns, which takes the variance between layers out of a uniform
sample's; ``equal`` gives every layer as many, which resolves small layers at the price of larger
weights on the large ones.
"""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from pipeline.config import Options, Seed
from pipeline.sketch.base import (
    ElementSketch,
    ParameterSlot,
    checked_size,
    parameter_count,
    parameter_slots,
)
from pipeline.types import InputError


class StratifiedOptions(Options):
    """A sample of every layer's parameters."""

    kind: Literal["stratified"] = "stratified"
    size: int | None = Field(default=None, gt=0)
    """Number of kept parameters; left out, 100,000 or all of a smaller network."""
    seed: Seed = 0
    """Seed of the samples."""
    allocation: Literal["proportional", "equal"] = "proportional"
    """Columns per layer: by its number of parameters, or the same for all."""


def build(options: StratifiedOptions, model: nn.Module) -> ElementSketch:
    """The sample of every layer of ``model`` that ``options`` describe."""
    total = parameter_count(model)
    size = checked_size(options.size, total)
    strata = list(layers_of(parameter_slots(model)).values())
    counts = np.array([sum(slot.numel for slot in stratum) for stratum in strata])
    if size < len(strata):
        raise InputError(
            f"{size} columns cannot hold one of each of the {len(strata)} layers.", "sketch.size"
        )
    shares = counts if options.allocation == "proportional" else np.ones(len(counts))
    kept = allocate(size, counts, shares)
    rng = np.random.default_rng(options.seed)
    indices, weights = [], []
    for stratum, count, keep in zip(strata, counts, kept, strict=True):
        positions = np.concatenate([np.arange(slot.start, slot.stop) for slot in stratum])
        indices.append(np.sort(rng.choice(positions, size=keep, replace=False)))
        weights.append(np.full(keep, np.sqrt(count / keep)))
    return ElementSketch(
        kind=options.kind,
        seed=options.seed,
        total=total,
        indices=torch.from_numpy(np.concatenate(indices)),
        column_weights=torch.from_numpy(np.concatenate(weights)),
        prefix_closed=False,
    )


def layers_of(slots: list[ParameterSlot]) -> dict[str, list[ParameterSlot]]:
    """The parameters of each module that owns some, in the network's order."""
    layers: dict[str, list[ParameterSlot]] = {}
    for slot in slots:
        layers.setdefault(slot.layer, []).append(slot)
    return layers


def allocate(size: int, capacities: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """``size`` items over bins by their shares: at least one each, at most their capacity.

    Largest remainders first, so the counts sum to ``size`` exactly.
    """
    kept = np.ones(len(capacities), dtype=np.int64)
    while (left := size - kept.sum()) > 0:
        open_shares = np.where(kept < capacities, shares, 0.0)
        ideal = kept + left * open_shares / open_shares.sum()
        granted = np.minimum(np.floor(ideal).astype(np.int64), capacities)
        if (granted == kept).all():
            # Less than one whole column for every bin: one each to the largest remainders.
            order = np.argsort(-(np.minimum(ideal, capacities) - kept), kind="stable")
            granted = kept.copy()
            granted[order[:left]] += 1
            granted = np.minimum(granted, capacities)
        kept = granted
    return kept
