"""The plan of a job: what fits, what it costs, or why it cannot be."""

from collections.abc import Collection
from dataclasses import replace
from typing import Literal

from pipeline.distributed.options import ExecutorOptions
from pipeline.planner.facts import JobFacts
from pipeline.planner.limits import LimitsOptions
from pipeline.planner.machine import Machine, Rates
from pipeline.planner.plan import Plan
from pipeline.planner.roads import STRATEGIES, KernelProblem, Road, Strategy, all_roads
from pipeline.planner.timing import (
    feature_seconds,
    gram_seconds,
    or_nominal,
    road_seconds,
    solve_seconds,
)
from pipeline.planner.units import bytes_text, seconds_text
from pipeline.planner.workers import (
    DRIVER_BYTES,
    MEMBER_BYTES,
    FeatureWorkers,
    plan_workers,
    process_limit,
)
from pipeline.types import InputError

FREE_SHARE = 0.95
"""Of the free disk space that a plan may fill."""


def make_plan(
    facts: JobFacts,
    machine: Machine,
    *,
    executor: ExecutorOptions | None = None,
    limits: LimitsOptions | None = None,
    batch_size: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    strategies: Collection[Strategy] = STRATEGIES,
) -> Plan:
    """The plan; ``batch_size`` None and device ``auto`` are decided here.

    ``strategies`` are the roads that the caller can take for this kernel and solver.

    Raises :class:`InputError` with the figures, and what to change, when memory or disk do not
    suffice.
    """
    executor, limits = executor or ExecutorOptions(), limits or LimitsOptions()
    workers = plan_workers(
        facts, machine, executor=executor, limits=limits, batch_size=batch_size, device=device
    )
    disk = disk_limit(machine, limits, facts.stored_bytes)
    _check_store(facts, disk)
    roads, limit = _roads(facts, machine, limits, workers, disk)
    roads = tuple(road for road in roads if road.strategy in strategies)
    road, why = choose_road(roads, machine.rates, facts, limit)
    base = DRIVER_BYTES if road.workers == 1 else MEMBER_BYTES
    return Plan(
        executor=workers.executor,
        device=workers.device,
        workers=workers.workers,
        threads=workers.threads,
        gpus_per_worker=workers.gpus_per_worker,
        batch_size=workers.batch_size,
        rows_per_shard=facts.rows_per_shard,
        shards=facts.shards,
        worker_bytes=workers.worker_bytes,
        worker_limit=workers.worker_limit,
        driver_bytes=base + road.process_bytes,
        driver_limit=limit,
        algebra_bytes=limit - base,
        store_bytes=facts.store_bytes,
        kernel_bytes=road.disk_bytes,
        disk_limit=disk,
        feature_flops=facts.samples * facts.flops_per_sample,
        feature_read_bytes=facts.samples * facts.input_bytes,
        strategy=road.strategy,
        roads=roads,
        seconds=_seconds(facts, workers, machine, road),
        reasons=(*workers.reasons, f"kernel {road.strategy}: {why}"),
    )


def disk_limit(machine: Machine, limits: LimitsOptions, stored: int) -> int | None:
    """Bytes that features and kernels may take, those that lie there already included."""
    free = None if machine.disk_bytes is None else int(FREE_SHARE * machine.disk_bytes) + stored
    if limits.disk == "auto":
        return free
    return limits.disk if free is None else min(limits.disk, free)


def choose_road(
    roads: tuple[Road, ...], rates: Rates, facts: JobFacts, limit: int
) -> tuple[Road, str]:
    """K in memory where it fits; else the road that takes the least time."""
    fitting = [road for road in roads if road.fits]
    if not fitting:
        raise _no_road(roads, facts, limit)
    if fitting[0].strategy == "memory":
        return fitting[0], "K and what is solved with it fit into one process"
    nominal = or_nominal(rates)
    times = {road.strategy: road_seconds(road, nominal) or 0.0 for road in fitting}
    fastest = min(fitting, key=lambda road: times[road.strategy])
    estimates = ", ".join(f"{name} {seconds_text(time)}" for name, time in times.items())
    basis = "given rates" if nominal == rates else "ordinary rates"
    return fastest, f"K does not fit into one process; at {basis}: {estimates}"


def _roads(
    facts: JobFacts,
    machine: Machine,
    limits: LimitsOptions,
    workers: FeatureWorkers,
    disk: int | None,
) -> tuple[tuple[Road, ...], int]:
    """All roads, and what a process may use; ranks that share a node share its memory."""
    problem = KernelProblem(
        n=facts.n,
        m=facts.m,
        val=facts.val,
        largest=facts.largest,
        fitted=facts.fitted_rows,
        p=facts.p,
        k=facts.targets,
        itemsize=facts.itemsize,
        prefixes=facts.prefixes,
        workers=workers.workers,
        process_bytes=process_limit(machine, limits, 1) - DRIVER_BYTES,
        disk_bytes=None if disk is None else disk - facts.store_bytes,
    )
    on_node = -(-workers.workers // machine.nodes)
    shared = process_limit(machine, limits, on_node) - MEMBER_BYTES
    alone, together = all_roads(problem), all_roads(replace(problem, process_bytes=shared))
    roads = tuple(
        single if single.workers == 1 else joint
        for single, joint in zip(alone, together, strict=True)
    )
    return roads, process_limit(machine, limits, 1)


def _check_store(facts: JobFacts, disk: int | None) -> None:
    if disk is None or facts.store_bytes <= disk:
        return
    fitting = int(facts.p * disk / facts.store_bytes)
    other_dtype = ", use features.dtype float16" if facts.itemsize > 2 else ""
    raise InputError(
        f"the features of {facts.samples:,} samples × {facts.p:,} columns take "
        f"{bytes_text(facts.store_bytes)} on disk; {bytes_text(disk)} may be used. Lower "
        f"sketch.size to at most {fitting:,}{other_dtype}, limit the samples, or move store.root "
        "to a larger disk.",
        "limits.disk",
    )


def _no_road(roads: tuple[Road, ...], facts: JobFacts, limit: int) -> InputError:
    lines = [f"  {road.strategy}: {road.reason}" for road in roads]
    return InputError(
        f"no way to solve for {facts.n:,} training rows fits ({bytes_text(limit)} of memory for a "
        "process, of which "
        f"{bytes_text(DRIVER_BYTES)} go to libraries and data):\n" + "\n".join(lines) + "\n"
        "Raise limits.memory or limits.disk, use more workers, or limit the training samples.",
        "limits.memory",
    )


def _seconds(
    facts: JobFacts, workers: FeatureWorkers, machine: Machine, road: Road
) -> dict[str, float]:
    devices = workers.workers if workers.device == "cuda" else min(workers.workers, machine.nodes)
    estimates = {
        "features": feature_seconds(facts, devices, machine.rates),
        "kernel": gram_seconds(road, machine.rates),
        "fit": solve_seconds(road, machine.rates),
    }
    return {stage: seconds for stage, seconds in estimates.items() if seconds is not None}
