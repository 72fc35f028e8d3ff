"""Features of the store as column panels, for kernels that are never formed."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gram.panels import PANEL_COLUMNS, column_ranges_of, narrowed, weighted_panels
from pipeline.gram.sources import ArraySource, PanelSource, RowRange, StackedSource
from pipeline.gram.weighting import weightings_of


class FeaturePanels:
    """Some rows of stacked sources, float32, read anew at every pass, one panel ahead.

    The weights that columns have in common are left out: they are ``factors``, one a row.
    """

    def __init__(
        self,
        parts: Sequence[tuple[PanelSource, slice]],
        device: torch.device | None = None,
        panel_columns: int = PANEL_COLUMNS,
    ) -> None:
        # A worker may hold no row: it takes part in every panel's sum all the same.
        sources = [RowRange(source, rows) for source, rows in parts if rows.stop > rows.start]
        self._stack = StackedSource(sources) if sources else None
        self._weightings = weightings_of(sources) if sources else []
        p = parts[0][0].shape[1]
        self._ranges = column_ranges_of(p, width=panel_columns)
        self.shape = self._stack.shape if self._stack else (0, p)
        self.device = device or torch.device("cpu")

    @property
    def factors(self) -> Float[Tensor, "h 1"]:
        """What each row's features are multiplied with, float64."""
        factors = torch.empty((self.shape[0], 1), dtype=torch.float64, device=self.device)
        for weights, rows in zip(self._weightings, self._row_ranges, strict=True):
            factors[rows] = weights.factor
        return factors

    @property
    def _row_ranges(self) -> list[slice]:
        return self._stack.row_ranges if self._stack else []

    def __iter__(self) -> Iterator[Float[Tensor, "h w"]]:
        if self._stack is None:
            for columns in self._ranges:
                yield torch.empty((0, columns.stop - columns.start), device=self.device)
            return
        for _, panel in weighted_panels(self._stack, self._weightings, self._ranges):
            yield torch.from_numpy(panel).to(self.device)


def resident(source: PanelSource, rows: slice) -> PanelSource:
    """Some rows of a source, read into memory as they are stored."""
    part = RowRange(source, rows)
    values = torch.empty(part.shape, dtype=part.dtype)
    panel = torch.empty((part.shape[0], min(PANEL_COLUMNS, part.shape[1])), dtype=part.dtype)
    for columns in column_ranges_of(part.shape[1]):
        read = narrowed(panel, columns.stop - columns.start)
        part.read(columns, read)
        values[:, columns] = read
    return ArraySource(values, part.weights())
