"""The actor that runs blocks, and how an error travels from an actor to the driver."""

import logging
import socket
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.distributed.executor import BlockFunction, Expecting, MakeWorker
from pipeline.distributed.worker import (
    KEPT_MEMORY,
    computing_threads,
    log_file,
    malloc_is_chosen,
    summary,
)
from pipeline.log import BlockDone
from pipeline.types import InputError

logger = logging.getLogger(__name__)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

BESIDE, BLOCKS = "beside", "blocks"
"""The concurrency groups of calls that run beside a block, and of blocks, where one computes while
another finishes."""

RAYS_OWN_NAMES = ("class_name:", "actor_id:", "namespace:", "name:", "The actor died unexpectedly")

LONGEST_CAUSE = 500
"""Characters of Ray's messages that are passed on."""


@dataclass(frozen=True)
class Refused:
    """A user's mistake met in a worker, as plain values.

    Ray would wrap the exception and print the worker's traceback.
    """

    kind: type[InputError]
    message: str
    where: str | None

    def error(self) -> InputError:
        """The same error, to be raised in the driver."""
        # Subclasses build their message from other arguments; __new__ alone takes it as it is.
        error = self.kind.__new__(self.kind, self.message)
        error.where = self.where
        return error


@dataclass(frozen=True)
class Failed:
    """Any other exception in a worker."""

    cause: str
    traceback: str


class WorkerProcess:
    """An actor's process: its threads and its log file."""

    malloc: ClassVar[dict[str, str]] = {}
    """Variables that say how its memory is kept."""

    def __init__(self, name: str, threads: int, log_folder: Path | None) -> None:
        self._name = name
        self._for_life = ExitStack()
        self._for_life.enter_context(computing_threads(threads))
        if log_folder is not None:
            logging.getLogger("pipeline").setLevel(logging.INFO)
        self._for_life.enter_context(log_file(log_folder, name))
        logger.info("%s begins on %s with threads: %d", name, socket.gethostname(), threads)

    def __repr__(self) -> str:
        """What Ray's dashboard and logs call this actor."""
        return f"entk-{self._name}"


class BlockWorker(WorkerProcess):
    """The actor's class that runs blocks, with the current block function."""

    malloc = KEPT_MEMORY

    def __init__(self, name: str, threads: int, log_folder: Path | None) -> None:
        super().__init__(name, threads, log_folder)
        self._block_function: BlockFunction | None = None
        self._computing = ThreadPoolExecutor(max_workers=1)

    def prepare(self, make_worker: MakeWorker, spec: Any) -> Refused | Failed | None:
        """Get ready for the blocks of one run."""
        self._block_function = None  # frees the last run's before the next one is made
        try:
            self._block_function = make_worker(spec)
        except InputError as error:
            return refused(error)
        except Exception as error:
            return failed(error, "the start of a worker")
        return None

    def compute(self, block: int) -> BlockDone | Refused | Failed:
        """Run one block; of two calls at once, one computes while the other finishes."""
        assert self._block_function is not None, "prepare comes first"
        try:
            done = self._computing.submit(self._block_function, block).result()
            event = done if isinstance(done, BlockDone) else done()
        except InputError as error:
            return refused(error)
        except Exception as error:
            return failed(error, f"block {block}")
        logger.info("block %d: %d rows in %.1f s", block, event.rows, event.seconds)
        return event

    def expect(self, block: int) -> None:
        """Let the block function begin what its next block needs; runs beside :meth:`compute`."""
        if isinstance(self._block_function, Expecting):
            self._block_function.expect(block)

    def release(self) -> None:
        """Let the block function and what it holds go."""
        self._block_function = None


def new_actor(
    kind: type[WorkerProcess], index: int, threads: int, gpus: float, log_folder: Path | None
) -> Any:
    """The handle of a new actor; the driver alone decides what happens when it dies."""
    import ray

    environment = dict.fromkeys(THREAD_VARIABLES, str(threads))
    if not malloc_is_chosen():
        environment |= kind.malloc
    if gpus == 0:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    remote: Any = ray.remote  # whose types know no concurrency groups
    actor_class = remote(concurrency_groups={BESIDE: 1, BLOCKS: 2})(kind).options(
        num_cpus=threads,
        num_gpus=gpus,
        max_restarts=0,
        max_task_retries=0,
        scheduling_strategy=_strategy(gpus),
        runtime_env={"env_vars": environment},
    )
    return actor_class.remote(f"worker-{index:03d}", threads, log_folder)


def _strategy(gpus: float) -> str:
    """Over all nodes; in a mixed cluster, without a GPU of one's own, away from those of others.

    Ray's default keeps from nodes with GPUs while others have room, which its SPREAD does not.
    """
    import ray

    return "DEFAULT" if gpus == 0 and ray.cluster_resources().get("GPU", 0) > 0 else "SPREAD"


def refused(error: InputError) -> Refused:
    """A user's mistake as values."""
    return Refused(type(error), str(error), error.where)


def failed(error: Exception, what: str) -> Failed:
    """Any other exception as values; the traceback goes to the worker's log."""
    logger.error("%s failed", what, exc_info=True)
    return Failed(summary(error), "".join(traceback.format_exception(error)))


def said_shortly(error: BaseException) -> str:
    """What Ray's long messages say, without its own names for things, on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(RAYS_OWN_NAMES)]
    return "; ".join(telling)[:LONGEST_CAUSE]
