"""Random projections of both factors of every weight's gradient, after LoGra (Choe et al. 2024).

A weight's gradient G (rows × columns) is a sum of products of an output gradient and an input; the
sketch is L G Rᵀ with Gaussian L (a × rows, variance 1/a) and R (b × columns, variance 1/b), so that
``E⟨L G Rᵀ, L G′ Rᵀ⟩ = ⟨G, G′⟩``. Where a or b reaches the full width the identity takes its place.
Vectors (biases, scales) are projected by L alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Options, Seed
from pipeline.sketch.base import (
    checked_size,
    digest_tensors,
    parameter_count,
    parameter_slots,
    sketch_provenance,
)
from pipeline.sketch.ranks import Kept, Matrix, choose, clamp, matrix_view


class KroneckerOptions(Options):
    """Random projections of both factors of every weight's gradient."""

    kind: Literal["kronecker"] = "kronecker"
    size: int | None = Field(default=None, gt=0)
    """Most columns to make: whole products of ranks may come out a few short of it."""
    seed: Seed = 0
    """Seed of the projections."""


@dataclass(frozen=True, eq=False)
class KroneckerSketch:
    """Projected gradients L G Rᵀ, parameter after parameter."""

    seed: int
    total: int
    """P: parameters of the network."""
    size: int
    """p: columns."""
    offsets: Mapping[str, int]
    """First column of each parameter."""
    parts: Mapping[str, Kept]
    """Ranks a and b of each parameter."""
    kind: str = "kronecker"
    prefix_closed: bool = False

    @property
    def column_weights(self) -> Float[Tensor, " p"]:
        """Ones: the projections carry their own scale."""
        return torch.ones(self.size, dtype=torch.float64)

    def factors(self, name: str) -> tuple[Float[Tensor, "a rows"], Float[Tensor, "b columns"]]:
        """L and R of one parameter, float32, made anew from the seed."""
        kept = self.parts[name]
        # A stream of its own for every parameter: no order of asking changes a factor.
        rng = np.random.default_rng([self.seed, kept.matrix.slot.start])
        left = _projection(rng, kept.rows, kept.matrix.rows)
        return left, _projection(rng, kept.groups, kept.matrix.groups)

    def digest(self) -> str:
        """SHA-256 of the columns' places and of every factor."""
        # One factor pair at a time: together they may be larger than the network.
        parts = [digest_tensors(name, start, *self.factors(name)) for name, start in
                 self.offsets.items()]  # fmt: skip
        return digest_tensors(f"{self.kind}:{','.join(parts)}", self.total)

    def provenance(self) -> dict[str, Any]:
        """What names this sketch in an artefact's provenance."""
        return sketch_provenance(self)


def build(options: KroneckerOptions, model: nn.Module) -> KroneckerSketch:
    """The projections of ``model``'s gradients that ``options`` describe."""
    total = parameter_count(model)
    slots = parameter_slots(model)
    matrices = [matrix_view(slot, grouped=False) for slot in slots]
    parts = choose(matrices, checked_size(options.size, total), _ranks)
    offsets, start = {}, 0
    for kept in parts:
        offsets[kept.matrix.slot.name] = start
        start += kept.size
    return KroneckerSketch(
        seed=options.seed,
        total=total,
        size=start,
        offsets=offsets,
        parts={kept.matrix.slot.name: kept for kept in parts},
    )


def _ranks(matrix: Matrix, share: float) -> Kept:
    """Equal ranks on both sides, as in LoGra: an embedding's long side stays cheap to project."""
    wanted = share * matrix.rows * matrix.groups
    rank = min(wanted**0.5, matrix.rows, matrix.groups)
    shorter = max(1.0, rank)
    if matrix.rows <= matrix.groups:
        rows = clamp(shorter, matrix.rows)
        return Kept(matrix, rows, clamp(wanted / rows, matrix.groups))
    groups = clamp(shorter, matrix.groups)
    return Kept(matrix, clamp(wanted / groups, matrix.rows), groups)


def _projection(rng: np.random.Generator, rank: int, width: int) -> Tensor:
    if rank == width:
        return torch.eye(width)
    return torch.from_numpy(rng.standard_normal((rank, width), dtype=np.float32) / rank**0.5)
