"""One kernel at a time: of one set of rows, of two, or the rows that one worker holds."""

import functools
from typing import Any

import numpy as np
import torch

from pipeline.gram import accumulate
from pipeline.gram.blocks import gram_blocks
from pipeline.gram.device import device_of
from pipeline.gram.kernel_form import inverse_norms, scale_block
from pipeline.gram.panels import PANEL_COLUMNS, column_ranges_of, weighted_panels
from pipeline.gram.sources import PanelSource, RowRange, StackedSource, as_source
from pipeline.gram.weighting import weightings_of


def gram(
    x: Any,
    other: Any = None,
    *,
    weights: Any = None,
    center: bool = False,
    normalize: bool = False,
    panel_columns: int | None = None,
    device: str | torch.device = "cpu",
) -> Any:
    """K = Φ W² Φ′ᵀ of feature stores or arrays: (n, n) of ``x``, or (n, m) of ``x`` with ``other``.

    float32, accumulated in float32. W are the stores' own weights, or ones for an array, unless
    ``weights`` (p,) are given. ``other`` are the training rows, whose mean ``center`` subtracts.
    A NumPy array, or a tensor on the GPU that computed it.
    """
    blocks = functools.partial(
        gram_blocks,
        weights=weights,
        center=center,
        normalize=normalize,
        panel_columns=panel_columns,
        device=device,
    )
    if other is None:
        return blocks(x)["train"]
    if center or torch.device(device).type != "cpu" or device_of([x, other]) is not None:
        # The mean feature is known only to the kernel among the training rows.
        return blocks(other, {"x": x})["x"]
    return _rectangle(as_source(x, weights), as_source(other, weights), normalize, panel_columns)


def gram_rows(
    train: Any, rows: slice, *, weights: Any = None, panel_columns: int | None = None
) -> np.ndarray:
    """The rows K[rows, :] of the kernel of ``train``, float32 (r, n): one worker's share of K."""
    source = as_source(train, weights)
    return _rectangle(RowRange(source, rows), source, False, panel_columns)


def _rectangle(
    x: PanelSource, other: PanelSource, normalize: bool, panel_columns: int | None
) -> np.ndarray:
    stack = StackedSource([x, other])
    weightings = weightings_of(stack.sources)
    n, m = x.shape[0], other.shape[0]
    # The block of `other` with `x` in Fortran order is that of `x` with `other` row by row.
    block = accumulate.new_block(m, n)
    norms = np.zeros(n + m)
    ranges = column_ranges_of(stack.shape[1], width=panel_columns or PANEL_COLUMNS)
    for _, panel in weighted_panels(stack, weightings, ranges):
        accumulate.add_product(block, panel[n:], panel[:n])
        if normalize:
            accumulate.add_squared_norms(norms, panel)
    K = block.T
    if normalize:
        inverses = (
            inverse_norms(torch.from_numpy(norms[:n]), "given"),
            inverse_norms(torch.from_numpy(norms[n:]), "other"),
        )
        scale_block(torch.from_numpy(K), *inverses)
    else:
        K *= np.float32(weightings[0].factor * weightings[1].factor)
    return K
