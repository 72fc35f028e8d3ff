"""Seconds and peak device memory of a stage."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def stage(rows: list[dict[str, Any]], what: str, device: str, **facts: Any) -> Iterator[None]:
    """Append a row with the time and peak memory of what happens inside."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    yield
    row: dict[str, Any] = {"what": what, **facts}
    if device == "cuda":
        torch.cuda.synchronize()
        row["peak_GiB"] = torch.cuda.max_memory_allocated() / 2**30
    row["seconds"] = time.perf_counter() - started
    rows.append(row)
