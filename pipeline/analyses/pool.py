"""A pool of stored features as the look-ahead sees it: columns of its kernel, read when asked for.

K of a pool of 50,000 samples would take 20 GB; the columns of a few thousand candidates are what is
needed. Columns that were read once are kept, float32.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.analyses.lookahead import rows_of
from pipeline.analyses.streamed import StreamedFeatures


class StoredPool:
    """The kernel of a feature store (or of an array of features), read by columns."""

    def __init__(self, features: Any, *, rows_per_sample: int = 1) -> None:
        self.features = StreamedFeatures(features)
        self.rows_per_sample = rows_per_sample
        self._known: dict[int, Float[Tensor, "N q"]] = {}

    def columns(self, samples: Int[Tensor, " c"]) -> Float[Tensor, "N cq"]:
        """k(pool, samples): one pass over the features for those not read before."""
        wanted = samples.tolist()
        missing = [sample for sample in dict.fromkeys(wanted) if sample not in self._known]
        if missing:
            blocks = self._read(torch.tensor(missing)).split(self.rows_per_sample, dim=1)
            self._known.update(zip(missing, blocks, strict=True))
        return torch.cat([self._known[sample] for sample in wanted], dim=1).double()

    def _read(self, samples: Int[Tensor, " c"]) -> Float[Tensor, "N cq"]:
        rows = rows_of(samples, self.rows_per_sample)
        block = torch.zeros(self.features.shape[0], len(rows))
        for _, panel in self.features.panels():
            block.addmm_(panel, panel[rows].T)
        return block.mul_(self.features.factor**2)
