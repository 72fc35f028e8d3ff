"""The other Gram, ΦᵀΦ (p, p), for more rows than columns, and ΦᵀY with it."""

from typing import Any

import numpy as np
import torch

from pipeline.gram import accumulate
from pipeline.gram.finish import mirror_lower
from pipeline.gram.panels import converted, read_ahead, row_ranges
from pipeline.gram.sources import PanelSource, as_source
from pipeline.gram.weighting import weighting
from pipeline.types import InputError

PANEL_ROWS = 8192


def gram_primal(
    features: Any, targets: Any = None, *, weights: Any = None, panel_rows: int = PANEL_ROWS
) -> tuple[np.ndarray, np.ndarray | None]:
    """W ΦᵀΦ W, float32 (p, p), and W ΦᵀY, float32 (p, k), for targets (n, k), in one pass.

    Cheaper than K = Φ W² Φᵀ when n > p: ridge coefficients of the weighted features solve
    ``(WΦᵀΦW + λI) w = WΦᵀY`` and predict ``φ(x) W w``.
    """
    source = as_source(features, weights)
    n, p = source.shape
    if n == 0 or p == 0:
        raise InputError("a kernel needs at least one row and one column of features.")
    weights_of = weighting(source)
    Y = None if targets is None else np.asarray(targets, dtype=np.float32).reshape(n, -1)
    block = accumulate.new_block(p, p)
    moments = None if Y is None else np.zeros((p, Y.shape[1]), dtype=np.float32)
    for rows, values in _row_panels(source, panel_rows):
        weights_of.apply(values, slice(None))
        panel = values.numpy()
        accumulate.add_inner(block, panel)
        if moments is not None and Y is not None:
            moments += panel.T @ Y[rows]
    C = block.T
    C *= np.float32(weights_of.factor**2)
    # Fortran order's lower triangle is the upper one row by row.
    mirror_lower(torch.from_numpy(C.T))
    if moments is not None:
        moments *= np.float32(weights_of.factor)
    return C, moments


def _row_panels(source: PanelSource, panel_rows: int) -> Any:
    """Row ranges and their float32 features of all columns, read ahead."""
    n, p = source.shape
    ranges = row_ranges(n, panel_rows)
    buffers = [torch.empty((min(n, panel_rows), p), dtype=source.dtype) for _ in range(2)]
    work = None if source.dtype == torch.float32 else torch.empty((min(n, panel_rows), p))

    def load(rows: slice, index: int) -> torch.Tensor:
        panel = buffers[index % 2][: rows.stop - rows.start]
        source.read(slice(0, p), panel, rows)
        return panel

    for rows, values in read_ahead(load, ranges):
        yield rows, converted(values, work)
