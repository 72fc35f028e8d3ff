"""The actor that runs blocks, and how an error travels from it to the driver."""

import logging
import time
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.distributed.executor import BlockFunction, MakeWorker
from pipeline.distributed.worker import computing_threads, log_file, summary
from pipeline.log import BlockDone
from pipeline.types import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """A finished block and the seconds that the worker spent on it."""

    event: BlockDone
    seconds: float


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


class BlockWorker:
    """The actor's class: one process, its threads, its log file and the current block function."""

    def __init__(self, index: int, threads: int, log_folder: Path | None) -> None:
        self._for_life = ExitStack()
        self._for_life.enter_context(computing_threads(threads))
        if log_folder is not None:
            logging.getLogger("pipeline").setLevel(logging.INFO)
        self._for_life.enter_context(log_file(log_folder, index))
        self._block_function: BlockFunction | None = None

    def prepare(self, make_worker: MakeWorker, spec: Any) -> Refused | Failed | None:
        """Get ready for the blocks of one run."""
        self._block_function = None  # frees the last run's before the next one is made
        try:
            self._block_function = make_worker(spec)
        except InputError as error:
            return _refused(error)
        except Exception as error:
            return _failed(error, "the start of a worker")
        return None

    def compute(self, block: int) -> Done | Refused | Failed:
        """Run one block."""
        assert self._block_function is not None, "prepare comes first"
        started = time.perf_counter()
        try:
            event = self._block_function(block)
        except InputError as error:
            return _refused(error)
        except Exception as error:
            return _failed(error, f"block {block}")
        return Done(event, time.perf_counter() - started)

    def release(self) -> None:
        """Let the block function and what it holds go."""
        self._block_function = None


def _refused(error: InputError) -> Refused:
    return Refused(type(error), str(error), error.where)


def _failed(error: Exception, what: str) -> Failed:
    logger.error("%s failed", what, exc_info=True)
    return Failed(summary(error), "".join(traceback.format_exception(error)))
