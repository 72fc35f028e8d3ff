"""Rows of a batch that were chosen by an index: whose they are, as far as that is known.

Rules take a call's rows for those of the samples in order, as many of each. A network that routes
tokens to experts or takes padding out breaks this, and may break it in later batches alone, after
the trial on two samples. So whatever is chosen along the first axis is followed to the calls that
use it; where its rows are not in the samples' order, no rule is used.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

OWN_SHAPE = (
    torch.zeros_like,
    torch.ones_like,
    torch.empty_like,
    torch.full_like,
    torch.Tensor.new_zeros,
    torch.Tensor.new_ones,
    torch.Tensor.new_empty,
    torch.Tensor.new_full,
)
"""Functions whose result holds nothing of their arguments."""

PLACING = {
    function
    for name in ("index_add", "index_copy", "index_put", "scatter", "scatter_add", "masked_scatter")
    for owner, ending in ((torch, ""), (torch.Tensor, ""), (torch.Tensor, "_"))
    if (function := getattr(owner, name + ending, None)) is not None
} | {torch.Tensor.__setitem__, torch.scatter_reduce, torch.Tensor.scatter_reduce}
"""Functions that put rows back to where an index says: the result has its first argument's."""


SPLITTING = {
    getattr(owner, name)
    for name in ("split", "chunk", "tensor_split")
    for owner in (torch, torch.Tensor)
}
"""Functions that cut a tensor along an axis, their third argument."""


class RowOrder:
    """Follows chosen rows through one forward pass of ``samples`` samples."""

    def __init__(self, samples: int, is_constant: Callable[[Tensor], bool]) -> None:
        self._samples = samples
        self._is_constant = is_constant
        self._moved: dict[int, tuple[Tensor, Tensor | None]] = {}
        """Tensors (held, so that their ids stay theirs), and the sample of each of their rows."""
        self._choosing = False
        """From the first choice on, parts of the rows may be choices, too."""

    def is_kept(self, tensors: list[Tensor]) -> bool:
        """Whether the rows of all these are the samples', in order."""
        return not self._moved or not any(id(tensor) in self._moved for tensor in tensors)

    def note(
        self, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor], result: Any
    ) -> None:
        """Follow one call's rows into its result."""
        index = _first_index(func, args, kwargs)
        if isinstance(index, Tensor) or (self._choosing and index is not None):
            if not self._is_constant(tensors[0]):
                self._choosing = True
                for each in _each(result):
                    self._remember(each, self._chosen(tensors[0], index, each))
        elif self._moved and func not in OWN_SHAPE:
            sources = tensors[:1] if func in PLACING else tensors
            moved = [self._moved[id(t)][1] for t in sources if id(t) in self._moved]
            for each in _each(result) if moved else ():
                same = [ids for ids in moved if ids is not None and _rows(each) == len(ids)]
                self._remember(each, same[0] if same else None)

    def _remember(self, tensor: Tensor, ids: Tensor | None) -> None:
        if ids is None or not torch.equal(ids, self._in_order(len(ids), ids.device)):
            self._moved[id(tensor)] = (tensor, ids)

    def _in_order(self, rows: int, device: torch.device) -> Int[Tensor, " rows"]:
        """The sample of each row, where each has as many; else what no rows have."""
        if rows % self._samples:
            return torch.full((rows,), -1, device=device)
        return torch.arange(self._samples, device=device).repeat_interleave(rows // self._samples)

    def _chosen(self, source: Tensor, index: Any, result: Tensor) -> Int[Tensor, " rows"] | None:
        """The sample of each row of ``source[index]``; None where rows hold several, or unknown."""
        known = self._moved.get(id(source))
        ids = self._in_order(_rows(source), source.device) if known is None else known[1]
        if ids is None or index is UNKNOWN:
            return None
        if isinstance(index, Tensor) and index.dtype == torch.bool:
            ids = ids.view(-1, *(1,) * (index.ndim - 1)).expand(index.shape)
        found = ids[index]
        if len(found) != _rows(result):
            return None
        found = found.flatten(1) if found.ndim > 1 else found.unsqueeze(1)
        return found[:, 0] if bool((found == found[:, :1]).all()) else None


UNKNOWN = object()
"""Stands for an index that says nothing about rows."""


def _first_index(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What a call takes along the first axis: a tensor or a part of the rows; None for all."""
    if func is torch.Tensor.__getitem__:
        first = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
        if isinstance(first, slice):
            return None if first == slice(None) else first
        return first if isinstance(first, Tensor) and first.ndim else None
    if func in (torch.index_select, torch.Tensor.index_select):
        dim = args[1] if len(args) > 1 else kwargs["dim"]
        return None if dim else (args[2] if len(args) > 2 else kwargs["index"])
    if func in SPLITTING:
        return None if (args[2] if len(args) > 2 else kwargs.get("dim", 0)) else UNKNOWN
    return None


def _rows(tensor: Tensor) -> int:
    return len(tensor) if tensor.ndim else 1


def _each(result: Any) -> list[Tensor]:
    results = result if isinstance(result, (tuple, list)) else (result,)
    return [each for each in results if isinstance(each, Tensor)]
