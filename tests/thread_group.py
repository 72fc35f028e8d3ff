"""Workers as threads of this process, for tests of what they compute together."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import torch
from torch import Tensor


class ThreadGroup:
    """One of several threads that gather and add through a list they share."""

    def __init__(self, rank: int, board: list[Any], barrier: Barrier) -> None:
        self.rank = rank
        self.size = len(board)
        self.sent = 0
        self.device = torch.device("cpu")
        self._board = board
        self._barrier = barrier

    def gather(self, V: Tensor, heights: Sequence[int]) -> Tensor:
        assert len(V) == heights[self.rank]
        self.sent += (self.size - 1) * V.numel() * V.element_size()
        return torch.cat(self._all(V))

    def sum(self, T: Tensor) -> Tensor:
        self.sent += 2 * (self.size - 1) * T.numel() * T.element_size() // self.size
        return torch.stack(self._all(T)).sum(dim=0)

    def _all(self, T: Tensor) -> list[Tensor]:
        self._board[self.rank] = T
        self._barrier.wait()
        found = list(self._board)
        self._barrier.wait()
        return found


def together(size: int, work: Callable[[ThreadGroup], Any]) -> list[Any]:
    """What ``work`` gives in each of ``size`` threads; the first error ends them all."""
    board: list[Any] = [None] * size
    barrier = Barrier(size, timeout=60)

    def guarded(rank: int) -> Any:
        try:
            return work(ThreadGroup(rank, board, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return [future.result() for future in [pool.submit(guarded, r) for r in range(size)]]
