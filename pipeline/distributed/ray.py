"""Blocks over Ray: plain actors that pull blocks from one queue in the driver.

The driver alone decides about retries: actors are never restarted by Ray, a dead one is replaced
and its unfinished blocks are handed out again. Actors live until :meth:`RayExecutor.close`, so
that a second run does not pay for their start again.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pipeline.distributed.cluster import connect
from pipeline.distributed.decoders import (
    Decoders,
    MakeLoader,
    start_decoders,
    stop_decoders,
)
from pipeline.distributed.executor import MakeWorker, Outcome, RetryListener
from pipeline.distributed.ray_run import RayRun
from pipeline.distributed.ray_worker import BlockWorker, new_actor
from pipeline.log import Listener

logger = logging.getLogger(__name__)


class RayExecutor:
    """Runs blocks on ``workers`` actors of ``threads`` computing threads each."""

    def __init__(
        self,
        *,
        workers: int,
        threads: int,
        address: str | None = None,
        gpus_per_worker: float = 0.0,
        max_retries_per_block: int = 3,
        block_timeout: float | None = None,
        log_folder: Path | None = None,
    ) -> None:
        self.workers, self.threads = workers, threads
        self._address = address
        self._gpus_per_worker = gpus_per_worker
        self._max_retries_per_block = max_retries_per_block
        self._block_timeout = block_timeout
        self._log_folder = log_folder.absolute() if log_folder else None
        self._started_ray = False
        self._actors: dict[int, Any] = {}
        self._decoders: Decoders | None = None

    def connect(self) -> None:
        """Join or start Ray; :meth:`run` does it when nobody has before."""
        self._started_ray |= connect(self._address, cores=self.workers * self.threads)

    def run(
        self,
        make_worker: MakeWorker,
        spec: Any,
        blocks: Sequence[int],
        on_done: Listener,
        on_retry: RetryListener | None = None,
    ) -> Outcome:
        """Do every block; see :class:`~pipeline.distributed.executor.Executor`."""
        if not blocks:
            return Outcome()
        self.connect()
        run = RayRun(
            self,
            (make_worker, spec),
            blocks,
            workers=min(self.workers, len(blocks)),
            max_retries_per_block=self._max_retries_per_block,
            block_timeout=self._block_timeout,
            on_retry=on_retry,
        )
        try:
            outcome = run.complete(on_done)
        except BaseException:
            # Also Ctrl-C and SIGTERM: whatever still computes is of no use to anybody.
            self.stop_workers()
            raise
        for actor in self._actors.values():
            actor.release.remote()
        return outcome

    def actor(self, index: int) -> Any:
        """The handle of this worker's actor, made when there is none."""
        if index not in self._actors:
            self._actors[index] = self._new_actor(index)
        return self._actors[index]

    def discard(self, index: int) -> None:
        """Make sure that this worker's actor is gone; the next call makes another."""
        actor = self._actors.pop(index, None)
        if actor is None:
            return
        import ray

        if ray.is_initialized():
            ray.kill(actor, no_restart=True)

    def start_decoders(
        self, make_loader: MakeLoader, spec: Any, *, count: int, ahead: int, load_bytes: int
    ) -> Decoders:
        """Actors on CPUs that load for the workers; they end with this executor."""
        # A worker has two streams: the block that it computes and the next one's.
        results = self.workers * (2 * ahead + 1) * load_bytes
        self._started_ray |= connect(
            self._address, cores=self.workers * self.threads + count, results_bytes=results
        )
        for index in range(self.workers):
            self.actor(index)  # before the decoders, which could take the CPUs beside a GPU
        self._warn_of_few_cores(count)
        self._decoders = start_decoders(count, ahead, make_loader, spec, self._log_folder)
        return self._decoders

    def stop_workers(self) -> None:
        """End all actors, for example before others need their CPUs."""
        for index in list(self._actors):
            self.discard(index)

    def close(self) -> None:
        """End the actors, and Ray if this executor started or joined it."""
        self.stop_workers()
        if self._decoders is not None:
            stop_decoders(self._decoders)
            self._decoders = None
        if self._started_ray:
            import ray

            ray.shutdown()
            self._started_ray = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _warn_of_few_cores(self, decoders: int) -> None:
        import ray

        cores = int(ray.cluster_resources().get("CPU", 0))
        wanted = self.workers * self.threads + decoders
        if cores < wanted:
            logger.warning(
                "executor: %d workers of %d threads and %d decoders want %d CPUs, the cluster has "
                "%d; a worker loads its samples itself while no decoder runs",
                self.workers,
                self.threads,
                decoders,
                wanted,
                cores,
            )

    def _new_actor(self, index: int) -> Any:
        return new_actor(BlockWorker, index, self.threads, self._gpus_per_worker, self._log_folder)
