"""What every executor offers, and the rules that all of them keep.

``run(make_worker, spec, blocks, on_done)`` calls the module-level function ``make_worker(spec)``
once in each worker; what it returns is called with one block number at a time. It may leave the end
of a block's work, such as writing, to be done beside the next block. Blocks are handed out in the
order given and may run twice: a block's work must give the same bytes each time.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from pipeline.distributed.worker import summary
from pipeline.log import BlockDone, Listener
from pipeline.types import InputError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

Finish = Callable[[], BlockDone]
"""What is left of a block when the next one may begin; runs in another thread."""

BlockFunction = Callable[[int], BlockDone | Finish]
MakeWorker = Callable[[Any], BlockFunction]


@runtime_checkable
class Expecting(Protocol):
    """A block function that can get ready for its next block while it works on one."""

    def expect(self, block: int) -> None:
        """Begin what ``block`` needs; comes from another thread and may come in vain."""


class BlockFailedError(InputError):
    """A block that failed as often as it may; finished blocks are safe, a new run resumes."""

    def __init__(self, block: int, attempts: int, cause: str) -> None:
        self.block, self.attempts, self.cause = block, attempts, cause
        super().__init__(
            f"block {block} failed {attempts} times, the last time with: {cause}\n"
            "Finished blocks are kept; the same command continues once the cause is gone."
        )


class WorkerFailedError(InputError):
    """Workers that cannot start, so that no block ever would."""

    def __init__(self, attempts: int, cause: str) -> None:
        super().__init__(f"no worker could start in {attempts} attempts; the last error: {cause}")


@dataclass(frozen=True)
class BlockRetry:
    """A block went wrong and will be tried again."""

    block: int
    attempt: int
    """Failed attempts so far."""
    cause: str


RetryListener = Callable[[BlockRetry], None]


@dataclass(frozen=True)
class Outcome:
    """How a run of blocks went."""

    blocks: int = 0
    retries: int = 0
    """Attempts that failed and were repeated."""
    workers_lost: int = 0
    """Worker processes that died or hung and were replaced."""
    startup_seconds: float = 0.0
    """From the call to the first worker that was ready."""
    work_seconds: float = 0.0
    """From the first ready worker to the last finished block."""
    busy_seconds: float = 0.0
    """Seconds that blocks say they took, summed over the workers."""

    def plus(self, later: "Outcome") -> "Outcome":
        """Two runs of one executor as one."""
        return Outcome(
            **{
                field.name: getattr(self, field.name) + getattr(later, field.name)
                for field in fields(self)
            }
        )


class Executor(Protocol):
    """Runs blocks; used as a context manager, since workers may outlive one ``run``."""

    workers: int
    threads: int

    def run(
        self,
        make_worker: MakeWorker,
        spec: Any,
        blocks: Sequence[int],
        on_done: Listener,
        on_retry: RetryListener | None = None,
    ) -> Outcome:
        """Do every block; ``on_done`` hears of each finished one, in the calling thread.

        Raises the worker's own :class:`~pipeline.types.InputError` (never tried again), or
        :class:`BlockFailedError` when anything else went wrong with one block too often.
        """

    def close(self) -> None:
        """End what this executor started."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...


@runtime_checkable
class DecodingExecutor(Protocol):
    """An executor whose workers can be given what others load."""

    def start_decoders(
        self, make_loader: Any, spec: Any, *, count: int, ahead: int, load_bytes: int
    ) -> Any:
        """Actors that load ``load_bytes`` at a time; they end with the executor."""


class Attempts:
    """Counts the failures of each block and says when it is enough."""

    def __init__(self, most: int, on_retry: RetryListener | None) -> None:
        self._most = most
        self._on_retry = on_retry
        self._failures: Counter[int] = Counter()

    @property
    def retries(self) -> int:
        """Failed attempts so far, over all blocks."""
        return self._failures.total()

    def failed(self, block: int, cause: str) -> None:
        """Note one failure; raises :class:`BlockFailedError` at the last one allowed."""
        self._failures[block] += 1
        attempt = self._failures[block]
        if attempt >= self._most:
            raise BlockFailedError(block, attempt, cause)
        logger.warning("block %d failed (attempt %d of %d): %s", block, attempt, self._most, cause)
        if self._on_retry is not None:
            self._on_retry(BlockRetry(block, attempt, cause))


def tried(action: Callable[[], Result], block: int, attempts: Attempts) -> Result | None:
    """What the action gives; None after a failure that is to be repeated.

    Raises :class:`BlockFailedError` after the last attempt allowed, and a user's mistake at once.
    """
    try:
        return action()
    except InputError:
        raise
    except Exception as error:
        logger.debug("block %d", block, exc_info=True)
        attempts.failed(block, summary(error))
        return None
