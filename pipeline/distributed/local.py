"""The blocks one after another in this process: the reference that every executor must equal."""

import logging
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

from pipeline.distributed.executor import (
    Attempts,
    Expecting,
    MakeWorker,
    Outcome,
    RetryListener,
)
from pipeline.distributed.worker import computing_threads, kept_memory, log_file, summary
from pipeline.log import BlockDone, Listener
from pipeline.types import InputError

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
            for block, following in zip_longest(blocks, blocks[1:]):
                if following is not None and isinstance(block_function, Expecting):
                    block_function.expect(following)
                before = time.perf_counter()
                done = self._attempted(block_function, block, attempts)
                busy += time.perf_counter() - before
                on_done(done)
        return Outcome(
            blocks=len(blocks),
            retries=attempts.retries,
            startup_seconds=ready - started,
            work_seconds=time.perf_counter() - ready,
            busy_seconds=busy,
        )

    def _attempted(self, block_function: Any, block: int, attempts: Attempts) -> BlockDone:
        while True:
            try:
                done: BlockDone = block_function(block)
                return done
            except InputError:
                raise
            except Exception as error:
                logger.debug("block %d", block, exc_info=True)
                attempts.failed(block, summary(error))

    def close(self) -> None:
        """Nothing outlives :meth:`run` here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
