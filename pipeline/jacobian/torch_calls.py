"""What a call of a torch function says about itself: its tensors, whether it writes in place."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

REPEATING = (F.embedding, torch.Tensor.expand, torch.Tensor.repeat)
"""Functions by which constants may be given to every sample."""

TYPE_ONLY = (
    torch.Tensor.to,
    torch.Tensor.type_as,
    torch.Tensor.expand_as,
    torch.Tensor.view_as,
)
"""Functions that look at their other arguments' type and shape alone."""


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments or results, those in lists and tuples too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif type(value) in (tuple, list):
            yield from tensors_in(value)


def in_place(func: Any) -> bool:
    """Whether a function writes to its first argument."""
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


def repeats_over_batch(func: Any, args: Any, samples: int) -> bool:
    """Whether a call of one of ``REPEATING`` makes as many rows as there are samples."""
    if func is F.embedding:
        return args[0].ndim > 1 and args[0].shape[0] == samples
    sizes = args[1] if isinstance(args[1], (tuple, list, torch.Size)) else args[1:]
    return samples in sizes[: 1 if func is torch.Tensor.repeat else 2]
