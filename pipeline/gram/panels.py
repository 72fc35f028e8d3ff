"""Column panels: cutting the columns into ranges, reading one panel beside the work on another."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.gram.sources import StackedSource
from pipeline.gram.weighting import Weighting
from pipeline.types import InputError

Part = TypeVar("Part")
"""What is loaded at once: a range of columns, or of columns and rows."""

PANEL_COLUMNS = 8192
"""Default panel width: one inner chunk of the feature store, wide enough for GEMM speed."""


def column_ranges_of(
    p: int, columns: slice = slice(None), width: int = PANEL_COLUMNS, edges: Iterable[int] = ()
) -> list[slice]:
    """The panels of a pass over ``columns``, cut at multiples of ``width`` and at ``edges``."""
    start, stop, _ = columns.indices(p)
    if stop <= start:
        raise InputError(f"there are no columns in {columns}: the features have {p}.")
    ends = sorted(end for end in {*range(0, stop, width), stop, *edges} if start < end <= stop)
    return [slice(a, b) for a, b in itertools.pairwise([start, *ends])]


def check_sizes(sizes: Sequence[int], p: int) -> None:
    """Refuse prefixes that the features do not have."""
    for size in sizes:
        if not 0 < size <= p:
            raise InputError(
                f"{size} columns are asked for, the features have {p}.", "kernel.sizes"
            )


def row_ranges(n: int, height: int) -> list[slice]:
    """Ranges of at most ``height`` rows."""
    return [slice(a, min(a + height, n)) for a in range(0, n, height)]


def read_ahead(
    load: Callable[[Part, int], Tensor], ranges: Sequence[Part]
) -> Iterator[tuple[Part, Tensor]]:
    """Each part and what ``load(part, index)`` gives, the next loading while the caller works.

    A load may use the memory of the load before the last: a panel is valid until the next is taken.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="panel-reader") as reader:
        upcoming = reader.submit(load, ranges[0], 0)
        for index, current in enumerate(ranges):
            panel = upcoming.result()
            if index + 1 < len(ranges):
                upcoming = reader.submit(load, ranges[index + 1], index + 1)
            yield current, panel


def weighted_panels(
    stack: StackedSource, weightings: Sequence[Weighting], ranges: Sequence[slice]
) -> Iterator[tuple[slice, np.ndarray]]:
    """Each column range and its float32 panel, with the weights that differ applied.

    Memory: two float32 panels. For 16-bit features these are the two that are read into (half
    each) and the one that is multiplied.
    """
    shape = (stack.shape[0], max(columns.stop - columns.start for columns in ranges))
    buffers = [torch.empty(shape, dtype=stack.dtype) for _ in range(2)]
    work = None if stack.dtype == torch.float32 else torch.empty(shape)

    def load(columns: slice, index: int) -> Tensor:
        # Contiguous whatever the width: BLAS takes it as it is, the store reads straight into it.
        panel = narrowed(buffers[index % 2], columns.stop - columns.start)
        stack.read(columns, panel)
        return panel

    for columns, values in read_ahead(load, ranges):
        panel = converted(values, work)
        for weights, rows in zip(weightings, stack.row_ranges, strict=True):
            weights.apply(panel[rows], columns)
        yield columns, panel.numpy()


def converted(values: Tensor, work: Tensor | None) -> Tensor:
    """16-bit values as float32 in ``work``'s memory; float32 values themselves."""
    if work is None:
        return values
    panel = work.view(-1)[: values.numel()].view(values.shape)
    return panel.copy_(values)


def narrowed(buffer: Tensor, width: int) -> Tensor:
    """The start of a buffer's memory as a contiguous (rows, width) panel."""
    rows = buffer.shape[0]
    return buffer.view(-1)[: rows * width].view(rows, width)
