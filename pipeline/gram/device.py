"""The Gram on a GPU: 16-bit panels, float32 sums, the triangle by blocks of rows.

Features are either in the device's memory already, and are multiplied where they lie, or are read
from disk into page-locked panels while the panel before is multiplied. Columns with weights of
their own are rounded to 16 bits once more after weighting, which keeps K positive semi-definite.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.gram.panels import narrowed, read_ahead
from pipeline.gram.sources import StackedSource
from pipeline.gram.weighting import Weighting
from pipeline.types import InputError

DEVICE_PANEL_COLUMNS = 65_536
"""Panel width for features in device memory: few passes over K, sums long enough for full speed."""

TRIANGLE_ROWS = 4096
"""Rows per block of the triangle; half a block per row is computed beyond it."""


@dataclass
class DeviceSums:
    """What a pass accumulates on a device; the upper triangle of ``K`` is not filled."""

    K: Tensor
    """Lower triangle (n, n), float32."""
    crosses: list[Tensor]
    """(m, n) of each other set of rows with the training rows, float32."""
    norms: list[Tensor]
    """Squared norms of each other set's rows, float64 (m,)."""

    @classmethod
    def zeros(cls, n: int, others: Sequence[int], device: torch.device) -> "DeviceSums":
        """Nothing added yet."""
        return cls(
            torch.zeros((n, n), device=device),
            [torch.zeros((m, n), device=device) for m in others],
            [torch.zeros(m, device=device, dtype=torch.float64) for m in others],
        )

    def add(self, panels: Sequence[Tensor]) -> None:
        """Add one panel of the training rows and of each other set of rows, (rows, w) each."""
        train, *others = panels
        for start in range(0, len(train), TRIANGLE_ROWS):
            stop = min(start + TRIANGLE_ROWS, len(train))
            self.K[start:stop, :stop] += product(train[start:stop], train[:stop])
        for cross, norms, panel in zip(self.crosses, self.norms, others, strict=True):
            for start in range(0, len(panel), TRIANGLE_ROWS):
                rows = slice(start, start + TRIANGLE_ROWS)
                cross[rows] += product(panel[rows], train)
                norms[rows] += panel[rows].float().square().sum(dim=1)

    def copy(self) -> "DeviceSums":
        """A copy to finish while the pass goes on."""
        return DeviceSums(
            self.K.clone(), [c.clone() for c in self.crosses], [v.clone() for v in self.norms]
        )


Prefix = tuple[int, Tensor, list[Tensor], list[Tensor]]
"""Columns so far, K's lower triangle, the crosses and the norms of the other rows."""


def accumulate_on_device(
    panels: Iterator[tuple[slice, list[Tensor]]],
    rows: Sequence[int],
    ranges: Sequence[slice],
    sizes: Sequence[int],
    device: torch.device,
) -> Iterator[Prefix]:
    """The sums at every prefix of ``sizes`` and at the end; ``rows`` are each set's rows."""
    sums = DeviceSums.zeros(rows[0], rows[1:], device)
    for columns, parts in panels:
        sums.add(parts)
        last = columns == ranges[-1]
        if last or columns.stop in sizes:
            part = sums if last else sums.copy()
            yield columns.stop, part.K, part.crosses, part.norms


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right.T`` in float32, of 16-bit or float32 factors, accumulated in float32."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.mm(left, right.T, out_dtype=torch.float32)
    with _full_float32():
        return left.float() @ right.float().T


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Float32 products without TF32, whatever the caller allows elsewhere."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def resident_panels(
    tensors: Sequence[Tensor], weightings: Sequence[Weighting], ranges: Sequence[slice]
) -> Iterator[tuple[slice, list[Tensor]]]:
    """Column ranges of tensors in device memory: views, copied only to be weighted."""
    for tensor in tensors:
        if tensor.shape[1] != tensors[0].shape[1] or tensor.dtype != tensors[0].dtype:
            raise InputError(
                f"features {tuple(tensor.shape)} in {tensor.dtype} and {tuple(tensors[0].shape)} "
                f"in {tensors[0].dtype} cannot be multiplied: use the same sketch and dtype."
            )
    for columns in ranges:
        panels = [tensor[:, columns] for tensor in tensors]
        yield columns, [_weighed(p, w, columns) for p, w in zip(panels, weightings, strict=True)]


def streamed_panels(
    stack: StackedSource,
    weightings: Sequence[Weighting],
    ranges: Sequence[slice],
    device: torch.device,
) -> Iterator[tuple[slice, list[Tensor]]]:
    """Column ranges read from disk or host memory, each on the device as soon as it is there."""
    shape = (stack.shape[0], max(columns.stop - columns.start for columns in ranges))
    pinned = device.type == "cuda"
    buffers = [torch.empty(shape, dtype=stack.dtype, pin_memory=pinned) for _ in range(2)]

    def load(columns: slice, index: int) -> Tensor:
        panel = narrowed(buffers[index % 2], columns.stop - columns.start)
        stack.read(columns, panel)
        return panel

    for columns, values in read_ahead(load, ranges):
        # Blocking: the next but one read overwrites this page-locked panel.
        panel = values.to(device)
        parts = [panel[rows] for rows in stack.row_ranges]
        yield columns, [_weighed(p, w, columns) for p, w in zip(parts, weightings, strict=True)]


def _weighed(panel: Tensor, weights: Weighting, columns: slice) -> Tensor:
    if weights.columns is None:
        return panel
    factors = weights.columns[columns].to(panel.device)
    weighed = torch.empty(panel.shape, dtype=panel.dtype, device=panel.device)
    for start in range(0, len(panel), TRIANGLE_ROWS):
        rows = slice(start, start + TRIANGLE_ROWS)
        weighed[rows] = panel[rows] * factors
    return weighed


def device_of(features: Sequence[Any]) -> torch.device | None:
    """The GPU that holds all features, if they are tensors on one."""
    devices = {f.device if isinstance(f, Tensor) and f.is_cuda else None for f in features}
    return devices.pop() if len(devices) == 1 else None
