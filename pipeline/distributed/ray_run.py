"""One run of blocks over actors: the driver's loop."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.distributed.cluster import free_resources
from pipeline.distributed.executor import (
    Attempts,
    MakeWorker,
    Outcome,
    RetryListener,
)
from pipeline.distributed.queue import BlockQueue
from pipeline.distributed.ray_metrics import BlockMetrics
from pipeline.distributed.ray_worker import BESIDE, BLOCKS, Failed, Refused, said_shortly
from pipeline.distributed.starts import Starts
from pipeline.log import BlockDone, Listener

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""How often the loop looks at the clock while nothing happens."""

LAST_RESULT_SECONDS = 5.0
"""Wait for the answer of a worker that is gone: its last results may still be on their way."""

PATIENCE_SECONDS = 60.0
"""Wait for the first worker before saying that the cluster may have no room."""


class ActorPool(Protocol):
    """Where the run gets its actors from."""

    def actor(self, index: int) -> Any:
        """The handle of a worker's actor, made when there is none."""

    def discard(self, index: int) -> None:
        """Make sure that a worker's actor is gone."""


@dataclass(frozen=True)
class Call:
    """A call under way: a block, or with ``None`` the worker's preparation."""

    worker: int
    block: int | None


class RayRun:
    """The state of one run: the queue, the calls under way, and what has been counted."""

    def __init__(
        self,
        pool: ActorPool,
        job: tuple[MakeWorker, Any],
        blocks: Sequence[int],
        *,
        workers: int,
        max_retries_per_block: int,
        block_timeout: float | None,
        on_retry: RetryListener | None,
    ) -> None:
        self._pool = pool
        self._job = job
        self._blocks = blocks
        self._workers = workers
        self._block_timeout = block_timeout
        self._queue = BlockQueue(blocks, workers)
        self._attempts = Attempts(max_retries_per_block, on_retry)
        self._calls: dict[Any, Call] = {}
        self._busy_since: dict[int, float] = {}
        self._ready: set[int] = set()
        self._warned = False
        self._starts = Starts()
        self._workers_lost = 0
        self._busy_seconds = 0.0

    def complete(self, on_done: Listener) -> Outcome:
        """Run until every block is done."""
        import ray

        started = time.perf_counter()
        self._metrics = BlockMetrics()
        first_ready: float | None = None
        for worker in range(self._workers):
            self._prepare(worker)
        while self._queue.unfinished:
            refs, _ = ray.wait(list(self._calls), num_returns=1, timeout=TICK_SECONDS)
            for ref in refs:
                self._collect(ref, on_done)
            if first_ready is None and self._ready:
                first_ready = time.perf_counter()
            self._warn_of_waiting(time.perf_counter() - started)
            self._replace_hanging(on_done)
            for worker in self._starts.rested():
                self._prepare(worker)
            self._hand_out()
            self._report_queue()
        ready = first_ready if first_ready is not None else time.perf_counter()
        return Outcome(
            blocks=len(self._blocks),
            retries=self._attempts.retries,
            workers_lost=self._workers_lost,
            startup_seconds=ready - started,
            work_seconds=time.perf_counter() - ready,
            busy_seconds=self._busy_seconds,
        )

    def _prepare(self, worker: int) -> None:
        make_worker, spec = self._job
        ref = self._pool.actor(worker).prepare.remote(make_worker, spec)
        self._calls[ref] = Call(worker, None)

    def _report_queue(self) -> None:
        waiting = self._queue.waiting
        self._metrics.queue(
            waiting=waiting, running=self._queue.unfinished - waiting, workers=len(self._ready)
        )

    def _hand_out(self) -> None:
        for worker in sorted(self._ready):
            while (block := self._queue.next_for(worker)) is not None:
                if len(self._queue.held(worker)) == 1:
                    self._busy_since[worker] = time.perf_counter()
                else:
                    self._pool.actor(worker).expect.options(concurrency_group=BESIDE).remote(block)
                compute = self._pool.actor(worker).compute
                call = compute.options(name=f"block {block}", concurrency_group=BLOCKS)
                ref = call.remote(block)
                self._calls[ref] = Call(worker, block)

    def _collect(self, ref: Any, on_done: Listener) -> None:
        """Take one finished call's result, or find out that its worker is gone."""
        import ray

        call = self._calls.get(ref)
        if call is None:  # the worker was replaced meanwhile
            return
        try:
            result = ray.get(ref)
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            self._replace(call.worker, said_shortly(error), on_done)
            return
        except ray.exceptions.RayError as error:
            # Ray could not carry the call: arguments or result do not travel.
            result = Failed(said_shortly(error), str(error))
        del self._calls[ref]
        if isinstance(result, Refused):
            raise result.error()
        if call.block is None:
            self._prepared(call.worker, result)
        else:
            self._computed(call.worker, call.block, result, on_done)

    def _prepared(self, worker: int, result: Failed | None) -> None:
        if result is None:
            self._ready.add(worker)
            self._starts.succeeded(worker)
            return
        logger.debug("worker %d could not start:\n%s", worker, result.traceback)
        self._start_failed(worker, result.cause)

    def _computed(
        self, worker: int, block: int, result: BlockDone | Failed, on_done: Listener
    ) -> None:
        self._busy_since[worker] = time.perf_counter()
        if isinstance(result, BlockDone):
            self._queue.finished(worker, block)
            self._busy_seconds += result.seconds
            self._metrics.done(result)
            on_done(result)
            return
        logger.debug("block %d on worker %d:\n%s", block, worker, result.traceback)
        self._queue.failed(worker, block)
        self._attempts.failed(block, result.cause)

    def _replace(self, worker: int, cause: str, on_done: Listener) -> None:
        """A new actor in place of a lost one; its unfinished blocks are handed out again."""
        self._workers_lost += 1
        logger.warning("worker %d was lost and is replaced: %s", worker, cause)
        self._pool.discard(worker)
        self._collect_last_results(worker, on_done)
        was_ready = worker in self._ready
        self._ready.discard(worker)
        running = self._queue.lost(worker)
        if running is not None:
            self._attempts.failed(running, f"its worker died: {cause}")
        if was_ready:
            self._prepare(worker)
        else:
            self._start_failed(worker, cause)

    def _collect_last_results(self, worker: int, on_done: Listener) -> None:
        """Blocks that a lost worker had finished before it died are done, not lost."""
        import ray

        for ref in [ref for ref, call in self._calls.items() if call.worker == worker]:
            call = self._calls.pop(ref)
            if call.block is None:
                continue
            try:
                result = ray.get(ref, timeout=LAST_RESULT_SECONDS)
            except ray.exceptions.RayError:
                continue  # the block that the worker died in, or one behind it
            if isinstance(result, BlockDone):
                self._computed(worker, call.block, result, on_done)

    def _start_failed(self, worker: int, cause: str) -> None:
        starting = {call.worker for call in self._calls.values() if call.block is None}
        if self._starts.failed(worker, cause, others=bool((self._ready | starting) - {worker})):
            self._prepare(worker)
        else:
            self._pool.discard(worker)

    def _replace_hanging(self, on_done: Listener) -> None:
        if self._block_timeout is None:
            return
        now = time.perf_counter()
        for worker in sorted(self._ready):
            if self._queue.held(worker) and now - self._busy_since[worker] > self._block_timeout:
                cause = f"no result after {self._block_timeout:g} s (executor.block_timeout)"
                self._replace(worker, cause, on_done)

    def _warn_of_waiting(self, seconds: float) -> None:
        if self._ready or self._warned or seconds < PATIENCE_SECONDS:
            return
        self._warned = True
        logger.warning(
            "no worker is ready after %.0f s: they still load their network, or the cluster has no "
            "room for them; free are %s",
            PATIENCE_SECONDS,
            free_resources(),
        )
