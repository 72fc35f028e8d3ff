"""The workers that hold a kernel together, as operators need them: gather rows, add up numbers.

Every worker runs the same solver on its own rows; what comes out of a sum or a gather is equal on
all of them, so all take the same decisions. :class:`Alone` is the group of one process;
``distributed.group`` joins several through torch.distributed.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class Group(Protocol):
    """Workers of one kernel, this one among them; all call the same methods in the same order."""

    rank: int
    size: int
    device: torch.device
    """Where this worker computes."""
    sent: int
    """Bytes that this worker has sent so far."""

    def gather(self, V: Float[Tensor, "h k"], heights: Sequence[int]) -> Float[Tensor, "n k"]:
        """The workers' rows one under the other; ``heights`` are how many each of them has."""
        ...

    def sum(self, T: Tensor) -> Tensor:
        """The sum of the workers' T."""
        ...


class Alone:
    """One worker: nothing to gather, nothing to add."""

    rank = 0
    size = 1
    device = torch.device("cpu")
    sent = 0

    def gather(self, V: Float[Tensor, "n k"], heights: Sequence[int]) -> Float[Tensor, "n k"]:
        """V itself."""
        return V

    def sum(self, T: Tensor) -> Tensor:
        """T itself."""
        return T


def shares(n: int, size: int) -> list[slice]:
    """Contiguous rows of ``n`` for each of ``size`` workers, as equal as they can be."""
    return [slice(n * rank // size, n * (rank + 1) // size) for rank in range(size)]


def clipped(parts: Sequence[slice], n: int) -> list[slice]:
    """The shares' rows among the first ``n``."""
    return [slice(min(part.start, n), min(part.stop, n)) for part in parts]


def heights_of(parts: Sequence[slice]) -> list[int]:
    """How many rows each worker holds."""
    return [part.stop - part.start for part in parts]
