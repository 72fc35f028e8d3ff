"""Which block goes to which worker next: plain bookkeeping, without any cluster."""

from collections import defaultdict, deque
from collections.abc import Sequence


class BlockQueue:
    """Hands blocks out in order, at most two to a worker.

    The second waits at the worker, so that it never idles for the way to the driver and back.
    Near the end every worker holds only one: a slow worker must not sit on a block that another
    could have begun. Blocks of a lost worker go out alone: the last answers of a dying process
    can be lost with it, and only a block that was alone is surely the one it died in.
    """

    def __init__(self, blocks: Sequence[int], workers: int) -> None:
        self._waiting = deque(blocks)
        self._workers = workers
        self._held: defaultdict[int, deque[int]] = defaultdict(deque)
        self._suspects: set[int] = set()

    @property
    def unfinished(self) -> int:
        """Blocks that wait or run."""
        return len(self._waiting) + sum(len(held) for held in self._held.values())

    @property
    def waiting(self) -> int:
        """Blocks that no worker has."""
        return len(self._waiting)

    def held(self, worker: int) -> tuple[int, ...]:
        """The worker's blocks, the running one first."""
        return tuple(self._held[worker])

    def next_for(self, worker: int) -> int | None:
        """A block for this worker to begin or to keep ready, if it should have one more."""
        if not self._waiting or len(self._held[worker]) >= self._depth(worker):
            return None
        block = self._waiting.popleft()
        self._held[worker].append(block)
        return block

    def _depth(self, worker: int) -> int:
        near_the_end = len(self._waiting) <= self._workers
        suspicious = not self._suspects.isdisjoint([self._waiting[0], *self._held[worker]])
        return 1 if near_the_end or suspicious else 2

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
        self._suspects.update(held)
        self._waiting.extendleft(reversed(held))
        return held[0] if held else None
