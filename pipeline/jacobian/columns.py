"""The buffer that one backward pass fills, piece by piece."""

import torch
from torch import Tensor

from pipeline.jacobian.plan import Piece, Plan


class Columns:
    """Columns (n, q) of one scalar; the first values of a piece are written, later ones added.

    ``memory`` is written over where it is large enough: fresh memory costs a page fault for every
    4 KiB, which is much beside a copy.
    """

    def __init__(self, plan: Plan, n: int, dtype: torch.dtype, memory: Tensor) -> None:
        self._plan = plan
        self._put: set[Piece] = set()
        streamed = any(piece.feed for pieces in plan.pieces.values() for piece in pieces)
        if memory.numel() >= n * plan.columns:
            self.values = memory[: n * plan.columns].view(n, plan.columns)
        else:
            self.values = torch.empty(n, plan.columns, dtype=dtype, device=memory.device)
        if streamed:
            self.values.zero_()

    def add(self, piece: Piece, values: Tensor) -> None:
        """One use's values of a piece."""
        piece.put(self.values, values, first=piece not in self._put)
        self._put.add(piece)

    def finished(self) -> Tensor:
        """The features (n, p) in the sketch's order; zero where nothing was used."""
        for pieces in self._plan.pieces.values():
            for piece in pieces:
                if piece not in self._put and piece.feed is None:
                    self.values[:, piece.start : piece.start + piece.keep.size] = 0
        order = self._plan.order
        return self.values if order is None else self.values.index_select(1, order)
