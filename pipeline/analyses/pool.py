"""A pool of stored features as the look-ahead sees it: columns of its kernel, read when asked for.

K of a pool of 50,000 samples would take 20 GB; the columns of a few thousand candidates are what is
needed. Columns that were read once are kept, float32.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.analyses.lookahead import rows_of
from pipeline.gram import PANEL_COLUMNS
from pipeline.gram.panels import column_ranges_of, weighted_panels
from pipeline.gram.sources import StackedSource, as_source
from pipeline.gram.weighting import weighting


class StoredPool:
    """The kernel of a feature store (or of an array of features), read by columns."""

    def __init__(self, features: Any, *, rows_per_sample: int = 1) -> None:
        self._source = as_source(features)
        self._weighting = weighting(self._source)
        self.rows_per_sample = rows_per_sample
        self.samples = self._source.shape[0] // rows_per_sample
        self._known: dict[int, Float[Tensor, "N q"]] = {}

    def columns(self, samples: Int[Tensor, " c"]) -> Float[Tensor, "N cq"]:
        """k(pool, samples): one pass over the features for those not read before."""
        wanted = samples.tolist()
        missing = [sample for sample in dict.fromkeys(wanted) if sample not in self._known]
        if missing:
            block = self._read(torch.tensor(missing))
            q = self.rows_per_sample
            self._known.update(zip(missing, block.split(q, dim=1), strict=True))
        return torch.cat([self._known[sample] for sample in wanted], dim=1).double()

    def diagonal(self) -> Float[Tensor, " N"]:
        """k(x, x) of every row, float64: one pass over the features."""
        total = torch.zeros(self._source.shape[0], dtype=torch.float64)
        for panel in self._panels():
            total += panel.double().square().sum(dim=1)
        return self._weighting.factor**2 * total

    def _read(self, samples: Tensor) -> Float[Tensor, "N cq"]:
        rows = rows_of(samples, self.rows_per_sample)
        block = torch.zeros(self._source.shape[0], len(rows))
        for panel in self._panels():
            block.addmm_(panel, panel[rows].T)
        return block.mul_(self._weighting.factor**2)

    def _panels(self) -> Iterator[Float[Tensor, "N w"]]:
        """All columns in order, float32, but for the factor common to all of them."""
        stack = StackedSource([self._source])
        ranges = column_ranges_of(stack.shape[1], width=PANEL_COLUMNS)
        for _, panel in weighted_panels(stack, [self._weighting], ranges):
            yield torch.from_numpy(panel)
