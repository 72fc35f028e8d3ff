"""The blocks one after another in this process: the reference that every executor must equal."""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self

from pipeline.distributed.executor import (
    Attempts,
    BlockFunction,
    Expecting,
    Finish,
    MakeWorker,
    Outcome,
    RetryListener,
    tried,
)
from pipeline.distributed.worker import computing_threads, kept_memory, log_file
from pipeline.log import BlockDone, Listener

logger = logging.getLogger(__name__)


class LocalExecutor:
    """Runs blocks in the calling process on ``threads`` computing threads."""

    workers = 1

    def __init__(
        self,
        *,
        threads: int,
        max_retries_per_block: int = 3,
        log_folder: Path | None = None,
    ) -> None:
        self.threads = threads
        self._max_retries_per_block = max_retries_per_block
        self._log_folder = log_folder

    def run(
        self,
        make_worker: MakeWorker,
        spec: Any,
        blocks: Sequence[int],
        on_done: Listener,
        on_retry: RetryListener | None = None,
    ) -> Outcome:
        """Do every block in order; see :class:`~pipeline.distributed.executor.Executor`."""
        if not blocks:
            return Outcome()
        attempts = Attempts(self._max_retries_per_block, on_retry)
        started = time.perf_counter()
        busy = 0.0
        with (
            kept_memory(),
            computing_threads(self.threads),
            log_file(self._log_folder, "worker-000"),
        ):
            block_function = make_worker(spec)
            ready = time.perf_counter()
            for event in _events(block_function, deque(blocks), attempts):
                busy += event.seconds
                on_done(event)
        return Outcome(
            blocks=len(blocks),
            retries=attempts.retries,
            startup_seconds=ready - started,
            work_seconds=time.perf_counter() - ready,
            busy_seconds=busy,
        )

    def close(self) -> None:
        """Nothing outlives :meth:`run` here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _events(
    block_function: BlockFunction, waiting: deque[int], attempts: Attempts
) -> Iterator[BlockDone]:
    """Every block's event; what a block leaves is done in a thread while the next one runs."""
    finishing: tuple[int, Finish] | None = None
    with ThreadPoolExecutor(max_workers=1) as beside:
        while waiting or finishing is not None:
            before, finishing = finishing, None
            if waiting:
                block = waiting.popleft()
                if waiting and isinstance(block_function, Expecting):
                    block_function.expect(waiting[0])
                done = tried(partial(block_function, block), block, attempts)
                if done is None:
                    waiting.appendleft(block)
                elif isinstance(done, BlockDone):
                    yield done
                else:
                    finishing = block, beside.submit(done).result
            if before is not None:
                block, finished = before
                event = tried(finished, block, attempts)
                if event is None:
                    waiting.appendleft(block)
                else:
                    yield event
