"""Rectangles of a kernel: two different sets of rows, or the rows that one worker holds."""

from typing import Any

import numpy as np

from pipeline.gram import accumulate
from pipeline.gram.blocks import gram_blocks
from pipeline.gram.kernel_form import inverse_norms, scale_block
from pipeline.gram.panels import PANEL_COLUMNS, column_ranges_of, weighted_panels
from pipeline.gram.sources import PanelSource, RowRange, StackedSource, as_source
from pipeline.gram.weighting import weighting


def gram(
    x: Any,
    other: Any = None,
    *,
    weights: Any = None,
    center: bool = False,
    normalize: bool = False,
    panel_columns: int = PANEL_COLUMNS,
) -> np.ndarray:
    """K = Φ W² Φ′ᵀ of feature stores or arrays: (n, n) of ``x``, or (n, m) of ``x`` with ``other``.

    float32, accumulated in float32. W are the stores' own weights, or ones for an array, unless
    ``weights`` (p,) are given. ``other`` are the training rows, whose mean ``center`` subtracts.
    """
    if other is None:
        return gram_blocks(
            x, weights=weights, center=center, normalize=normalize, panel_columns=panel_columns
        )["train"]
    if center:
        # The mean feature is known only to the kernel among the training rows.
        blocks = gram_blocks(
            other,
            {"x": x},
            weights=weights,
            center=True,
            normalize=normalize,
            panel_columns=panel_columns,
        )
        return blocks["x"]
    sources = [as_source(features, weights) for features in (x, other)]
    return _rectangle(sources[0], sources[1], normalize, panel_columns)


def gram_rows(
    train: Any, rows: slice, *, weights: Any = None, panel_columns: int = PANEL_COLUMNS
) -> np.ndarray:
    """The rows K[rows, :] of the kernel of ``train``, float32 (r, n): one worker's share of K."""
    source = as_source(train, weights)
    return _rectangle(RowRange(source, rows), source, False, panel_columns)


def _rectangle(
    x: PanelSource, other: PanelSource, normalize: bool, panel_columns: int
) -> np.ndarray:
    stack = StackedSource([x, other])
    weightings = [weighting(source) for source in stack.sources]
    n, m = x.shape[0], other.shape[0]
    # The block of `other` with `x` in Fortran order is that of `x` with `other` row by row.
    block = accumulate.new_block(m, n)
    norms = np.zeros(n + m)
    ranges = column_ranges_of(stack.shape[1], slice(None), panel_columns)
    for _, panel in weighted_panels(stack, weightings, ranges):
        accumulate.add_product(block, panel[n:], panel[:n])
        if normalize:
            accumulate.add_squared_norms(norms, panel)
    K = block.T
    if normalize:
        scale_block(K, inverse_norms(norms[:n], "given"), inverse_norms(norms[n:], "other"))
    else:
        K *= np.float32(weightings[0].factor * weightings[1].factor)
    return K
