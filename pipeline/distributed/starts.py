"""Workers that cannot start: tried again, then left alone while others do the work."""

import logging
import time
from collections import Counter

from pipeline.distributed.executor import WorkerFailedError

logger = logging.getLogger(__name__)

MOST_FAILED_STARTS = 3
"""Starts of a worker that may fail one after another."""

REST_SECONDS = 60.0
"""Wait before a worker that could not start is tried again: its node may recover."""


class Starts:
    """Counts failed starts by worker; a bad node costs its own worker, never the run."""

    def __init__(self) -> None:
        self._failures: Counter[int] = Counter()
        self._rests_until: dict[int, float] = {}

    def succeeded(self, worker: int) -> None:
        """The worker is ready."""
        del self._failures[worker]

    def failed(self, worker: int, cause: str, *, others: bool) -> bool:
        """Whether to start the worker again at once; otherwise it rests while ``others`` work.

        Raises :class:`WorkerFailedError` where there are none.
        """
        self._failures[worker] += 1
        failures = self._failures[worker]
        if failures < MOST_FAILED_STARTS:
            return True
        if not others:
            raise WorkerFailedError(failures, cause)
        if failures == MOST_FAILED_STARTS:
            logger.warning("worker %d cannot start, others go on without it: %s", worker, cause)
        self._rests_until[worker] = time.monotonic() + REST_SECONDS
        return False

    def rested(self) -> list[int]:
        """Workers that may be tried once more; each is named once."""
        now = time.monotonic()
        over = [worker for worker, until in self._rests_until.items() if until <= now]
        for worker in over:
            del self._rests_until[worker]
        return over
