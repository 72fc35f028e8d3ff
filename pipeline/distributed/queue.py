"""Which block goes to which worker next: plain bookkeeping, without any cluster."""

from collections import defaultdict, deque
from collections.abc import Sequence


class BlockQueue:
    """Hands blocks out in order, at most two to a worker.

    The second waits at the worker, so that it never idles for the way to the driver and back.
    Near the end every worker holds only one: a slow worker must not sit on a block that another
    could have begun.
    """

    def __init__(self, blocks: Sequence[int], workers: int) -> None:
        self._waiting = deque(blocks)
        self._workers = workers
        self._held: defaultdict[int, deque[int]] = defaultdict(deque)

    @property
    def unfinished(self) -> int:
        """Blocks that wait or run."""
        return len(self._waiting) + sum(len(held) for held in self._held.values())

    def held(self, worker: int) -> tuple[int, ...]:
        """The worker's blocks, the running one first."""
        return tuple(self._held[worker])

    def next_for(self, worker: int) -> int | None:
        """A block for this worker to begin or to keep ready, if it should have one more."""
        depth = 2 if len(self._waiting) > self._workers else 1
        if not self._waiting or len(self._held[worker]) >= depth:
            return None
        block = self._waiting.popleft()
        self._held[worker].append(block)
        return block

    def finished(self, worker: int, block: int) -> None:
        """The worker's block is done."""
        self._held[worker].remove(block)

    def failed(self, worker: int, block: int) -> None:
        """The worker's block went wrong: it is the next to be handed out."""
        self._held[worker].remove(block)
        self._waiting.appendleft(block)

    def lost(self, worker: int) -> int | None:
        """The worker is gone: its blocks wait again; returns the one that was running."""
        held = self._held.pop(worker, deque())
        self._waiting.extendleft(reversed(held))
        return held[0] if held else None
