"""Products with features of any size: Φ read panel by panel, from a store or an array."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gram import PANEL_COLUMNS
from pipeline.gram.panels import column_ranges_of, weighted_panels
from pipeline.gram.sources import ArraySource, StackedSource, as_source
from pipeline.gram.weighting import weighting

CACHED_COLUMNS = 512
"""Panel width of an array: read, converted and multiplied while it stays in the cache."""


class StreamedFeatures:
    """Φ (n, p) with its column weights, never in memory as a whole.

    ``features`` is a feature store, a panel source or an array; ``weights`` (p,) replace its own.
    Products are float32, as the features are, and come back in float64.
    """

    def __init__(self, features: Any, weights: Any = None) -> None:
        self.source = as_source(features, weights)
        self.shape = self.source.shape
        self._weighting = weighting(self.source)

    @property
    def factor(self) -> float:
        """What the panels lack: the weight common to all columns."""
        return self._weighting.factor

    def panels(self) -> Iterator[tuple[slice, Float[Tensor, "n w"]]]:
        """All columns in order, float32; a panel is valid until the next is taken."""
        stack = StackedSource([self.source])
        width = CACHED_COLUMNS if isinstance(self.source, ArraySource) else PANEL_COLUMNS
        ranges = column_ranges_of(self.shape[1], width=width)
        for columns, panel in weighted_panels(stack, [self._weighting], ranges):
            yield columns, torch.from_numpy(panel)

    def kernel_times(self, V: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """ΦΦᵀV in one pass."""
        out, given = torch.zeros(V.shape), V.float()
        for _, panel in self.panels():
            out.addmm_(panel, panel.T @ given)
        return self.factor**2 * out.double()

    def fisher_times(self, V: Float[Tensor, "p m"]) -> Float[Tensor, "p m"]:
        """ΦᵀΦV in two passes."""
        return self.transposed_times(self.times(V))

    def times(self, V: Float[Tensor, "p m"]) -> Float[Tensor, "n m"]:
        """ΦV in one pass."""
        out, given = torch.zeros(self.shape[0], V.shape[1]), V.float()
        for columns, panel in self.panels():
            out.addmm_(panel, given[columns])
        return self.factor * out.double()

    def transposed_times(self, U: Float[Tensor, "n m"]) -> Float[Tensor, "p m"]:
        """ΦᵀU in one pass."""
        out, given = torch.empty(self.shape[1], U.shape[1]), U.float()
        for columns, panel in self.panels():
            out[columns] = panel.T @ given
        return self.factor * out.double()

    def row_squares(self) -> Float[Tensor, " n"]:
        """Squared norms of the rows, the kernel's diagonal."""
        total = torch.zeros(self.shape[0], dtype=torch.float64)
        for _, panel in self.panels():
            total += panel.double().square().sum(dim=1)
        return self.factor**2 * total

    def column_squares(self) -> Float[Tensor, " p"]:
        """Squared norms of the columns: n times the diagonal of the empirical Fisher matrix."""
        total = torch.empty(self.shape[1], dtype=torch.float64)
        for columns, panel in self.panels():
            total[columns] = panel.double().square().sum(dim=0)
        return self.factor**2 * total
