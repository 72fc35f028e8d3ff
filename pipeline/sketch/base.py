"""What an element sketch is: a choice of the network's parameters, and what makes it unbiased.

With S the choice and W the diagonal of ``column_weights``, a sketched feature is the raw gradient
``φ = S ∇f`` and the kernel is ``K = Φ W² Φᵀ``, for which ``E[K] = ∇f ∇fᵀ`` over seeds.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.types import InputError

DEFAULT_SIZE = 100_000
"""Columns kept when no size is asked for (all parameters of a smaller network)."""


@dataclass(frozen=True, eq=False)
class ElementSketch:
    """Kept entries of the gradient: column j is ∂f/∂θ[indices[j]]."""

    kind: str
    seed: int
    total: int
    """P: parameters of the network."""
    indices: Int[Tensor, " p"]
    """Positions in the concatenation of ``model.named_parameters()``, int64."""
    column_weights: Float[Tensor, " p"]
    """What column j is multiplied with so that the kernel is unbiased, float64."""
    prefix_closed: bool
    """Whether the first q columns, reweighted by √(p/q), are a sketch of the same kind."""

    @property
    def size(self) -> int:
        """p: kept parameters."""
        return self.indices.numel()

    def digest(self) -> str:
        """SHA-256 of the positions and weights, in order."""
        return digest_tensors(self.kind, self.total, self.indices, self.column_weights)

    def provenance(self) -> dict[str, Any]:
        """What names this sketch in an artefact's provenance."""
        return sketch_provenance(self)


def sketch_provenance(sketch: Any) -> dict[str, Any]:
    """Kind, sizes, seed and digest of any sketch, as JSON values."""
    return {
        "kind": sketch.kind,
        "size": sketch.size,
        "seed": sketch.seed,
        "total": sketch.total,
        "digest": sketch.digest(),
    }


def digest_tensors(kind: str, total: int, *tensors: Tensor) -> str:
    """SHA-256 over a kind, the number of parameters and tensors (type, shape and bytes)."""
    sha = hashlib.sha256(f"{kind}:{total}".encode())
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        sha.update(f":{array.dtype}:{array.shape}:".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


@dataclass(frozen=True)
class ParameterSlot:
    """One parameter tensor's place in the concatenation of ``model.named_parameters()``."""

    name: str
    start: int
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of entries."""
        return torch.Size(self.shape).numel()

    @property
    def stop(self) -> int:
        """One past the last position."""
        return self.start + self.numel

    @property
    def layer(self) -> str:
        """Dotted name of the module that owns the parameter ("" for the network itself)."""
        return self.name.rpartition(".")[0]


def parameter_slots(model: nn.Module) -> list[ParameterSlot]:
    """All parameters in order, each once (a tied one where it is first met)."""
    slots, start = [], 0
    for name, parameter in model.named_parameters():
        slots.append(ParameterSlot(name, start, tuple(parameter.shape)))
        start = slots[-1].stop
    return slots


def parameter_count(model: nn.Module) -> int:
    """P: the number of parameters, tied ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def checked_size(
    size: int | None, available: int, what: str = "the network", instead: str = "use kind 'full'"
) -> int:
    """The number of columns to keep: ``size``, refused beyond ``available``, or the default."""
    if size is None:
        return min(DEFAULT_SIZE, available)
    if size > available:
        raise InputError(
            f"{size:,} parameters are asked for, but {what} has {available:,}. "
            f"Ask for at most {available:,}, or {instead}.",
            "sketch.size",
        )
    return size
