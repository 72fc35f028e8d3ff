"""The four roads to the solution of (K + λI)α = Y, each with its bytes, FLOPs and traffic.

| road | K | a product with k vectors takes |
|---|---|---|
| ``memory`` | in one process | 2n²k FLOP |
| ``sharded`` | its rows over w workers | 2n²k FLOP, an all-gather of n·k numbers |
| ``disk`` | in a file | 2n²k FLOP, 4n² bytes read |
| ``matrix_free`` | never formed | 4npk FLOP, the features read, an all-reduce of p·k numbers |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.gram.memory import ALLOWANCE, block_rows, gram_bytes, shard_bytes
from pipeline.gram.panels import PANEL_COLUMNS
from pipeline.planner.solving import FLOAT64, SolveCost, solve_costs
from pipeline.planner.units import bytes_text

Strategy = Literal["memory", "sharded", "disk", "matrix_free"]

STRATEGIES: tuple[Strategy, ...] = ("memory", "sharded", "disk", "matrix_free")

FLOAT32 = 4

SMALLEST_BLOCK = 64
"""Rows of K at a time that the Gram on disk needs at least."""


@dataclass(frozen=True, kw_only=True)
class KernelProblem:
    """Sizes of the kernel and of its solve, and what each process may use."""

    n: int
    """Training rows."""
    m: int
    """Rows of the other splits."""
    val: int = 0
    """Of these, the rows on which the choice is made."""
    largest: int = 0
    """Rows of the largest of the other splits."""
    fitted: int
    """Rows of the largest system solved: more than n when the final fit has more."""
    p: int
    k: int
    """Right-hand sides."""
    itemsize: int
    """Bytes of a stored number."""
    prefixes: int = 0
    """Further kernels of the first columns only."""
    workers: int
    process_bytes: int
    """Memory for the algebra of one process, in bytes."""
    disk_bytes: int | None
    """Room for kernels on disk, in bytes; None where it cannot be known."""

    @property
    def kernel_bytes(self) -> int:
        """K, the cross-kernels, those of prefixes, and what a final fit on more rows adds."""
        held_out = self.fitted - self.n
        blocks = (1 + self.prefixes) * self.n * (self.n + self.m) + held_out * self.m
        return FLOAT32 * blocks

    @property
    def feature_bytes(self) -> int:
        """The training rows' features, in bytes."""
        return self.n * self.p * self.itemsize

    def panel_bytes(self, rows: int) -> int:
        """Two float32 panels of so many rows, one computed with and one being read."""
        return int(ALLOWANCE * 2 * FLOAT32 * rows * min(PANEL_COLUMNS, self.p))


@dataclass(frozen=True, kw_only=True)
class Road:
    """What one road takes: sums over all its workers, but for ``process_bytes``."""

    strategy: Strategy
    workers: int
    method: str
    """How the path is solved on this road."""
    process_bytes: int
    """Peak memory of the algebra in one process, in bytes."""
    disk_bytes: int
    """Kernels and checkpoints on disk, in bytes."""
    gram_flops: float
    gram_read_bytes: float
    """Features read to form the kernels."""
    steps: int
    """Products with k vectors."""
    solve_flops: float
    solve_memory_bytes: float
    """Read from memory while solving."""
    solve_disk_bytes: float
    """Read from disk while solving."""
    network_bytes: float
    """Sent between the workers."""
    fits: bool
    reason: str
    """What it needs, and what it may use."""


def all_roads(problem: KernelProblem) -> tuple[Road, ...]:
    """The roads open to this many workers."""
    makers: list[Callable[[KernelProblem], Road]] = [memory_road, disk_road, matrix_free_road]
    if problem.workers > 1:
        makers.insert(1, sharded_road)
    return tuple(make(problem) for make in makers)


def memory_road(problem: KernelProblem) -> Road:
    """One process holds K; the triangle of one pass over the features."""
    gram = gram_bytes(problem.n, problem.m, p=problem.p)
    gram += FLOAT32 * problem.n * (problem.n + problem.m) if problem.prefixes else 0
    K = FLOAT32 * (problem.fitted**2 + (problem.n**2 if problem.fitted > problem.n else 0))
    solve = _solve(problem, dense=True, workers=1, beside=K)
    return _road(
        problem,
        "memory",
        solve,
        workers=1,
        process_bytes=max(gram, K + solve.in_process(1)),
        disk_bytes=problem.kernel_bytes,
        gram_flops=_triangle_flops(problem),
        gram_read_bytes=_one_pass(problem),
        step_flops=2.0 * problem.fitted**2 * problem.k,
        step_memory_bytes=FLOAT32 * problem.fitted**2,
    )


def sharded_road(problem: KernelProblem) -> Road:
    """Each worker holds n/w rows of K, and makes half of the blocks that it shares with others."""
    n, w = problem.fitted, problem.workers
    m = problem.n + problem.m - n
    rows = -(-n // w)
    K = FLOAT32 * rows * (n + m)
    beside = K + 2 * n * problem.k * FLOAT64
    solve = _solve(problem, dense=False, workers=w, beside=beside)
    made = n * (w // 2 + 1) / w  # training rows that a worker multiplies with its own
    return _road(
        problem,
        "sharded",
        solve,
        workers=w,
        process_bytes=max(shard_bytes(rows, n, m, p=problem.p), beside + solve.in_process(w)),
        disk_bytes=FLOAT32 * n * (n + m),
        gram_flops=2.0 * n * (made + m) * problem.p,
        gram_read_bytes=(w * (made + m) + n) * problem.p * problem.itemsize,
        step_flops=2.0 * n * (n + problem.val) * problem.k,
        step_memory_bytes=FLOAT32 * n**2,
        step_network_bytes=(w - 1) * n * problem.k * FLOAT64,
    )


def disk_road(problem: KernelProblem) -> Road:
    """K lies in a file; it is made and multiplied some rows at a time."""
    n, m = problem.n, problem.m
    least = int(ALLOWANCE * FLOAT32 * SMALLEST_BLOCK * n) + problem.panel_bytes(n + SMALLEST_BLOCK)
    tile = SMALLEST_BLOCK * problem.fitted * FLOAT64
    solve = _solve(problem, dense=False, workers=1, beside=tile)
    whole = gram_bytes(n, m, p=problem.p)
    whole_file = FLOAT32 * problem.fitted**2 if problem.fitted > n else 0
    if problem.process_bytes >= whole or problem.process_bytes < least:
        read, block = _one_pass(problem), n
    else:
        block = block_rows(n, m, problem.process_bytes, p=problem.p)
        read = _block_passes(problem, block)
    return _road(
        problem,
        "disk",
        solve,
        workers=1,
        process_bytes=max(least, tile + solve.in_process(1)),
        disk_bytes=problem.kernel_bytes + FLOAT32 * block * n + whole_file,
        gram_flops=_triangle_flops(problem),
        gram_read_bytes=read,
        step_flops=2.0 * problem.fitted**2 * problem.k,
        step_disk_bytes=FLOAT32 * problem.fitted**2,
    )


def matrix_free_road(problem: KernelProblem) -> Road:
    """K is never formed: each product goes through the features, panel by panel.

    What is predicted goes through them as well: the rows of the choice at every step.
    """
    n, w, val = problem.fitted, problem.workers, problem.val
    panels = problem.panel_bytes(-(-(n + problem.largest) // w))
    moments = 2 * min(PANEL_COLUMNS, problem.p) * problem.k * FLOAT64
    solve = _solve(problem, dense=False, workers=w, beside=panels + moments)
    process = panels + moments + solve.in_process(w)
    features = n * problem.p * problem.itemsize
    resident = process + features // w <= problem.process_bytes
    return _road(
        problem,
        "matrix_free",
        solve,
        workers=w,
        process_bytes=process + (features // w if resident else 0),
        disk_bytes=0,
        gram_flops=0.0,
        gram_read_bytes=features if resident else 0.0,
        step_flops=(4.0 * n + 2.0 * (n + val)) * problem.p * problem.k,
        step_memory_bytes=features if resident else 0.0,
        step_disk_bytes=0.0 if resident else features,
        # For the product, and for the rows of the choice.
        step_network_bytes=(2 if val else 1) * 2 * (w - 1) * problem.p * problem.k * FLOAT64,
        after_flops=2.0 * problem.m * problem.p * problem.k,
    )


def _road(
    problem: KernelProblem,
    strategy: Strategy,
    solve: SolveCost,
    *,
    workers: int,
    process_bytes: int,
    disk_bytes: int,
    gram_flops: float,
    gram_read_bytes: float,
    step_flops: float,
    step_memory_bytes: float = 0.0,
    step_disk_bytes: float = 0.0,
    step_network_bytes: float = 0.0,
    after_flops: float = 0.0,
) -> Road:
    lacks = []
    if process_bytes > problem.process_bytes:
        lacks.append(f"memory: {bytes_text(problem.process_bytes)} allowed for the algebra")
    if problem.disk_bytes is not None and disk_bytes > problem.disk_bytes:
        lacks.append(f"disk: {bytes_text(problem.disk_bytes)} left for kernels")
    need = f"{bytes_text(process_bytes)} a process, {bytes_text(disk_bytes)} on disk"
    return Road(
        strategy=strategy,
        workers=workers,
        method=solve.method,
        process_bytes=process_bytes,
        disk_bytes=disk_bytes,
        gram_flops=gram_flops,
        gram_read_bytes=gram_read_bytes,
        steps=solve.steps,
        solve_flops=solve.steps * step_flops + solve.flops + after_flops,
        solve_memory_bytes=solve.steps * step_memory_bytes,
        solve_disk_bytes=solve.steps * step_disk_bytes,
        network_bytes=solve.steps * step_network_bytes,
        fits=not lacks,
        reason=f"needs {need}" + (f"; too much {', '.join(lacks)}" if lacks else ""),
    )


def _solve(problem: KernelProblem, *, dense: bool, workers: int, beside: int) -> SolveCost:
    """The first method whose vectors fit beside what a process holds anyway, or the smallest."""
    costs = solve_costs(problem.fitted, problem.k, problem.largest, dense=dense)
    room = problem.process_bytes - beside
    fitting = [cost for cost in costs if cost.in_process(workers) <= room]
    return fitting[0] if fitting else costs[-1]


def _triangle_flops(problem: KernelProblem) -> float:
    """K's triangle and the cross-kernels; with a final fit on more rows, those rows' own too."""
    held_out = problem.fitted - problem.n
    rows = problem.n**2 + 2 * problem.n * problem.m + 2 * held_out * problem.m
    return float(rows * problem.p)


def _one_pass(problem: KernelProblem) -> float:
    return float((problem.n + problem.m) * problem.p * problem.itemsize)


def _block_passes(problem: KernelProblem, block: int) -> float:
    """Features read when K is made ``block`` rows at a time: half of the rows for its triangle."""
    triangle = -(-problem.n // block) * (problem.n / 2 + block)
    crosses = -(-problem.m // block) * (problem.n + block)
    return (triangle + crosses) * problem.p * problem.itemsize
