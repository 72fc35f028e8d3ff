"""K by rows: some of them here and the others with other workers, or all of them in a file."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.group import Alone, Group, heights_of
from pipeline.solvers.operator import TileSource, float64_tiles, product


class RowKernel:
    """The own rows of K times all rows of V: one all-gather of n×k numbers a product.

    ``K_rows`` (h, n) are the rows ``parts[group.rank]``, float32 or float64, in memory or read tile
    by tile; ``parts`` are the rows of every worker.
    """

    def __init__(
        self,
        K_rows: Float[Tensor, "h n"] | TileSource,
        parts: Sequence[slice] = (),
        group: Group | None = None,
    ) -> None:
        self.K_rows = K_rows
        self.group = group or Alone()
        self.n = K_rows.shape[1]
        self._heights = heights_of(parts) if parts else [self.n]
        self.rows = parts[self.group.rank] if parts else slice(0, self.n)
        self.device = K_rows.device
        self.error = float(torch.finfo(K_rows.dtype).eps)
        self.products = 0
        self.sent = 0

    def matvec(self, V: Float[Tensor, "h k"]) -> Float[Tensor, "h k"]:
        """(K V) for the own rows, in float64."""
        self.products += V.shape[1]
        before = self.group.sent
        gathered = self.gather(V)
        self.sent += self.group.sent - before
        return product(self.K_rows, gathered)

    def inner(self, U: Float[Tensor, "h a"], V: Float[Tensor, "h b"]) -> Float[Tensor, "a b"]:
        """UᵀV over all rows, in float64."""
        return self.group.sum(U.T @ V)

    def diagonal(self) -> Float[Tensor, " h"]:
        """K's diagonal for the own rows, float64: one pass over them."""
        found = torch.zeros(self.rows.stop - self.rows.start, dtype=torch.float64)
        found = found.to(self.device)
        for rows, tile in float64_tiles(self.K_rows):
            found[rows] = tile.diagonal(offset=self.rows.start + rows.start)[: len(tile)]
        return found

    def gather(self, V: Float[Tensor, "h k"]) -> Float[Tensor, "n k"]:
        """V of all workers."""
        return self.group.gather(V, self._heights)
