"""A sparse Johnson–Lindenstrauss transform of the whole gradient (Kane and Nelson 2014).

Every parameter is added, with a random sign and divided by √s, to one random column in each of s
blocks of columns: S has s entries per parameter and E[SᵀS] = I. Columns and signs are a hash of
(seed, position), so nothing of the size of the network is stored and the gradient may be fed in
any pieces.
"""

from dataclasses import dataclass
from typing import Any, Literal

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
from pipeline.types import InputError

# SplitMix64 (Steele, Lea and Flood 2014), its constants as signed 64-bit integers.
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)

SAMPLED_POSITIONS = 4096


class SjltOptions(Options):
    """A sparse random projection of the whole gradient."""

    kind: Literal["sjlt"] = "sjlt"
    size: int | None = Field(default=None, gt=0)
    """Number of columns; left out, 100,000 or as many as a smaller network has parameters."""
    seed: Seed = 0
    """Seed of the columns and signs."""
    nonzeros: int = Field(default=1, gt=0)
    """s: columns that every parameter is added to; more cost more and vary less."""


@dataclass(frozen=True, eq=False)
class SjltSketch:
    """The transform, applied to any piece of the gradient."""

    seed: int
    total: int
    """P: parameters of the network."""
    size: int
    """p: columns."""
    nonzeros: int
    """s: columns per parameter."""
    starts: dict[str, int]
    """Position of each parameter's first entry."""
    kind: str = "sjlt"
    prefix_closed: bool = False

    @property
    def column_weights(self) -> Float[Tensor, " p"]:
        """Ones: the transform carries its own scale."""
        return torch.ones(self.size, dtype=torch.float64)

    def accumulate(
        self, name: str, start: int, gradient: Float[Tensor, "n w"], out: Float[Tensor, "n p"]
    ) -> None:
        """Add the image of entries ``start … start + w`` of a flattened parameter to ``out``."""
        first = self.starts[name] + start
        positions = torch.arange(first, first + gradient.shape[1], device=gradient.device)
        scale = self.nonzeros**-0.5
        for block in range(self.nonzeros):
            columns, signs = self._hashed(positions, block)
            out.index_add_(1, columns, gradient * (signs * scale).to(gradient.dtype))

    def _hashed(self, positions: Tensor, block: int) -> tuple[Tensor, Tensor]:
        """Each position's column in one of the s blocks of columns, and its sign."""
        begin, end = (edge * self.size // self.nonzeros for edge in (block, block + 1))
        key = _mixed(torch.tensor([self.seed * self.nonzeros + block])).to(positions.device)
        bits = _mixed(positions * GOLDEN + key)
        # Bit 63 gives the sign, the others the column: 2⁶³ columns away from any bias.
        columns = begin + (bits & (2**63 - 1)) % (end - begin)
        return columns, 1.0 - 2.0 * (bits < 0)

    def digest(self) -> str:
        """SHA-256 of the settings and of the columns and signs of the first positions."""
        positions = torch.arange(min(self.total, SAMPLED_POSITIONS))
        sampled = [x for b in range(self.nonzeros) for x in self._hashed(positions, b)]
        return digest_tensors(f"{self.kind}:{self.size}:{self.seed}", self.total, *sampled)

    def provenance(self) -> dict[str, Any]:
        """What names this sketch in an artefact's provenance."""
        return sketch_provenance(self)


def build(options: SjltOptions, model: nn.Module) -> SjltSketch:
    """The transform of ``model``'s gradients that ``options`` describe."""
    total = parameter_count(model)
    size = checked_size(options.size, total)
    if options.nonzeros > size:
        raise InputError(
            f"every parameter cannot be added to {options.nonzeros} of {size} columns.",
            "sketch.nonzeros",
        )
    starts = {slot.name: slot.start for slot in parameter_slots(model)}
    return SjltSketch(options.seed, total, size, options.nonzeros, starts)


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finalizer; int64 products wrap around as its unsigned ones do."""
    for shift, multiplier in zip((30, 27), MULTIPLIERS, strict=True):
        x = (x ^ _shifted(x, shift)) * multiplier
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, shift: int) -> Tensor:
    """Shift right filling with zeros: torch's own repeats the sign bit."""
    return (x >> shift) & (2 ** (64 - shift) - 1)
