"""What the planner says of the whole job, from rates measured on this device, beside the measured.

The planner must be within a factor of ``CLOSE`` in time and memory, or it is to be mended.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from pipeline.planner.machine import Rates
from pipeline.planner.roads import KernelProblem, memory_road
from pipeline.planner.timing import gram_seconds, solve_seconds

CLOSE = 1.5
SIDE = {"cuda": 8_192, "cpu": 1_024}
"""Rows of the matrices whose products give the rates."""
REPEATS = 3


def planned(problem: KernelProblem, feature_bytes: int, device: str) -> dict[str, dict[str, float]]:
    """Seconds and GiB of the stages that the planner knows, by the stage's name.

    ``feature_bytes`` lie on the device while the kernel is formed.
    """
    road, known = memory_road(problem), measured_rates(device)
    # Features lie in memory here: nothing is read from a disk.
    gram = gram_seconds(road, Rates(gemm_flops=known.gemm_flops, disk_bandwidth=float("inf")))
    path = solve_seconds(road, known)
    gib = (feature_bytes + problem.kernel_bytes) / 2**30
    return {
        "kernel": {"planned_seconds": gram or 0.0, "planned_GiB": gib},
        "path and refit": {
            "planned_seconds": path or 0.0,
            "planned_GiB": road.process_bytes / 2**30,
        },
    }


def measured_rates(device: str) -> Rates:
    """Products in the Gram's and the path's arithmetic, and the memory's bandwidth."""
    side = SIDE[device]
    half = torch.float16 if device == "cuda" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=half) for _ in range(2))
    exact = a[: side // 2, : side // 2].double()
    flops = 2.0 * side**3
    return Rates(
        gemm_flops=flops / best_seconds(lambda: a @ b, device),
        gemm64_flops=flops / 8 / best_seconds(lambda: exact @ exact, device),
        memory_bandwidth=2.0 * a.nbytes / best_seconds(lambda: b.copy_(a), device),
    )


def best_seconds(work: Callable[[], Any], device: str) -> float:
    """The fastest of some repeats, after one that warms up."""
    seconds = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def compared(rows: list[dict[str, Any]], plan: dict[str, dict[str, float]]) -> None:
    """Set the plan's figures into the rows of its stages, and whether they are close."""
    for row in rows:
        if row["what"] not in plan:
            continue
        row |= plan[row["what"]]
        pairs = [(row["seconds"], row["planned_seconds"])]
        if "peak_GiB" in row:
            pairs.append((row["peak_GiB"], row["planned_GiB"]))
        row["plan_is_close"] = all(1 / CLOSE <= there / said <= CLOSE for there, said in pairs)
