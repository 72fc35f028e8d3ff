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
        sources = [RowRange(source, rows) for source, rows in parts if rows.stop > rows.start]
        self._stack = StackedSource(sources)
        self._weightings = weightings_of(sources)
        self._ranges = column_ranges_of(self._stack.shape[1], width=panel_columns)
        self.shape = self._stack.shape
        self.device = device or torch.device("cpu")

    @property
    def factors(self) -> Float[Tensor, "h 1"]:
        """What each row's features are multiplied with, float64."""
        pairs = zip(self._weightings, self._stack.row_ranges, strict=True)
        rows = [torch.full((r.stop - r.start, 1), w.factor, dtype=torch.float64) for w, r in pairs]
        return torch.cat(rows).to(self.device)

    def __iter__(self) -> Iterator[Float[Tensor, "h w"]]:
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
