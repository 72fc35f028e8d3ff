"""What goes on around a block function in the process that runs it."""

import contextlib
import ctypes
import logging
import os
import resource
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

logger = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""Names of glibc's switches (mallopt(3)), and their defaults."""
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = 128 * 1024, 65536, 0
KEPT_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(2**62),
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_ARENA_MAX": "1",
}
"""What :func:`kept_memory` sets, as variables for a process that begins."""


def peak_resident_bytes() -> int:
    """Most memory this process has held so far, in bytes."""
    if sys.platform == "linux":
        # getrusage there begins with the peak of the process that started this one.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # others count KiB


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
def kept_memory() -> Iterator[None]:
    """Inside, memory that is freed stays with the process for the next batch; given back after.

    glibc returns large blocks to the system, and every 4 KiB of fresh memory is a page fault: with
    hundreds of megabytes of activations a batch, much of a worker's time. Threads share one arena:
    those of others are given back whole whatever the switches say, a shard's encoding with them;
    of a process that has threads already, only :data:`KEPT_MEMORY` ensures that. Other C libraries
    have no such switch, and where ``MALLOC_`` variables choose, they decide.
    """
    libc = _glibc()
    if libc is None or malloc_is_chosen():
        yield
        return
    libc.mallopt(M_TRIM_THRESHOLD, -1)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_ARENA_MAX, 1)
    try:
        yield
    finally:
        libc.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
        libc.mallopt(M_MMAP_MAX, MMAP_MAX)
        libc.mallopt(M_ARENA_MAX, ARENA_MAX)
        libc.malloc_trim(0)


def malloc_is_chosen() -> bool:
    """Whether variables of this process say how memory is kept."""
    return any(name.startswith("MALLOC_") for name in os.environ)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") else None


@contextlib.contextmanager
def log_file(folder: Path | None, name: str) -> Iterator[None]:
    """The package's log of this process also in ``folder/NAME.log``, made with its first line."""
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"{name}.log", delay=True)
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
