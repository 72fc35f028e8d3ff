"""Actors that work on one thing together: each holds its part, all run the same function at once.

The opposite of blocks: no worker can do without the others. One that dies ends the group with an
error; nobody is replaced, since what the lost one held in memory is gone. What the work keeps on
disk is the caller's.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch

from pipeline.distributed.cluster import connect, free_resources
from pipeline.distributed.ray_worker import (
    Failed,
    Refused,
    WorkerProcess,
    failed,
    new_actor,
    refused,
    said_shortly,
)
from pipeline.distributed.torch_group import TorchGroup, free_port
from pipeline.types import InputError

logger = logging.getLogger(__name__)

START_SECONDS = 600.0
"""Wait for all workers to start: a cluster that scales up takes minutes."""

LAST_WORDS_SECONDS = 5.0
"""Wait, after one worker's error, for news that another one's death was the cause."""


class GroupFailedError(InputError):
    """A worker that died or failed, and with it the group; finished stages are kept."""

    def __init__(self, worker: int, size: int, cause: str) -> None:
        self.worker = worker
        super().__init__(
            f"worker {worker} of {size}, which held a part of the kernel, was lost: {cause}\n"
            "Finished stages are kept; the same command continues once the cause is gone."
        )


class GroupWorker(WorkerProcess):
    """The actor's class: a place in the group and what this worker holds."""

    def meeting_point(self) -> str:
        """host:port at which the first worker can wait for the others."""
        import ray

        return f"{ray.util.get_node_ip_address()}:{free_port()}"

    def join(self, rank: int, size: int, address: str) -> Refused | Failed | None:
        """Meet the other workers."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._group = TorchGroup.join(rank, size, address, device)
        except Exception as error:
            return failed(error, "joining the other workers")
        return None

    def prepare(self, make_member: Callable[..., Any], spec: Any) -> Refused | Failed | None:
        """Get hold of this worker's part."""
        self._member = None  # frees the last one before the next one is made
        return self._attempt(lambda: self._keep(make_member(spec, self._group)))

    def call(self, function: Callable[..., Any], task: Any) -> Any:
        """Run the function on this worker's part; only the first worker's result travels."""
        result = self._attempt(lambda: function(self._member, task))
        wrong = isinstance(result, Refused | Failed)
        return result if wrong or self._group.rank == 0 else None

    def _keep(self, member: Any) -> None:
        self._member = member

    def _attempt(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except InputError as error:
            return refused(error)
        except Exception as error:
            return failed(error, "work of the group")


class RayGroup:
    """``workers`` actors that hold something together; a context manager."""

    def __init__(
        self,
        *,
        workers: int,
        threads: int,
        address: str | None = None,
        gpus_per_worker: float = 0.0,
        log_folder: Path | None = None,
    ) -> None:
        self.workers = workers
        self._started_ray = connect(address, cores=workers * threads)
        folder = log_folder.absolute() if log_folder else None
        self._actors = [
            new_actor(GroupWorker, index, threads, gpus_per_worker, folder)
            for index in range(workers)
        ]
        [address] = self._collect([self._actors[0].meeting_point.remote()], START_SECONDS)
        self._collect(
            [actor.join.remote(i, workers, address) for i, actor in enumerate(self._actors)],
            START_SECONDS,
        )

    def prepare(self, make_member: Callable[..., Any], spec: Any) -> None:
        """Have every worker hold ``make_member(spec, group)``; both travel, so a module's own."""
        self._collect([actor.prepare.remote(make_member, spec) for actor in self._actors])

    def call(self, function: Callable[..., Any], task: Any) -> Any:
        """``function(member, task)`` on all workers at once; the first one's result."""
        return self._collect([actor.call.remote(function, task) for actor in self._actors])[0]

    def close(self) -> None:
        """End the workers, and Ray if this group started or joined it."""
        import ray

        if ray.is_initialized():
            for actor in self._actors:
                ray.kill(actor, no_restart=True)
        if self._started_ray:
            ray.shutdown()
            self._started_ray = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _collect(self, refs: list[Any], timeout: float | None = None) -> list[Any]:
        """All results; the group ends with the first error."""
        import ray

        waiting = list(refs)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=timeout)
            error = self._no_room(timeout) if not done else self._error(refs.index(done[0]), refs)
            if error is not None:
                self.close()
                raise error
        return list(ray.get(refs))

    def _error(self, index: int, refs: list[Any]) -> InputError | None:
        """What is wrong with a finished call, if anything."""
        import ray

        try:
            result = ray.get(refs[index])
        except ray.exceptions.RayError as error:
            return GroupFailedError(index, self.workers, said_shortly(error))
        if isinstance(result, Refused):
            return result.error()
        if isinstance(result, Failed):
            # The survivors of a death say that their connection broke: the dead one is the cause.
            return self._dead(refs) or GroupFailedError(index, self.workers, result.cause)
        return None

    def _dead(self, refs: list[Any]) -> GroupFailedError | None:
        import ray

        ray.wait(refs, num_returns=len(refs), timeout=LAST_WORDS_SECONDS)
        for index, ref in enumerate(refs):
            try:
                ray.get(ref, timeout=0)
            except ray.exceptions.GetTimeoutError:
                continue
            except ray.exceptions.RayError as error:
                return GroupFailedError(index, self.workers, said_shortly(error))
        return None

    def _no_room(self, timeout: float | None) -> InputError:
        return InputError(
            f"{self.workers} workers did not start in {timeout:.0f} s; the cluster has "
            f"{free_resources()} free. Ask for fewer, or wait for room.",
            "executor.workers",
        )
