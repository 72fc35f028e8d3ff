"""What goes on around a block function in the process that runs it."""

import contextlib
import logging
import resource
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

logger = logging.getLogger(__name__)


def peak_resident_bytes() -> int:
    """Most memory this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB


@contextlib.contextmanager
def computing_threads(threads: int) -> Iterator[None]:
    """Torch, BLAS and OpenMP on this many threads, as before afterwards.

    The number is part of the result: another one changes the order of float32 sums.
    """
    before = torch.get_num_threads()
    with threadpool_limits(limits=threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextlib.contextmanager
def log_file(folder: Path | None, worker: int) -> Iterator[None]:
    """The package's log of this process also in ``folder/worker-000.log``."""
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"worker-{worker:03d}.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    package = logging.getLogger("pipeline")
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()


def summary(error: BaseException) -> str:
    """One line: the error's type and message, and the innermost place it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
