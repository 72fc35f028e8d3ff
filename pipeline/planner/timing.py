"""Seconds from counts and rates; nothing is guessed where a rate has not been measured."""

from dataclasses import asdict

from pipeline.planner.facts import JobFacts
from pipeline.planner.machine import Rates
from pipeline.planner.roads import Road

NOMINAL = Rates(
    features_flops=1e11,
    gemm_flops=2e11,
    gemm64_flops=1e11,
    memory_bandwidth=2e10,
    network_bandwidth=1e9,
    disk_bandwidth=1e9,
    disk_write_bandwidth=5e8,
)
"""Of an ordinary node: they only rank the roads where nothing was measured."""


def or_nominal(rates: Rates) -> Rates:
    """The rates, with ordinary ones for those that are not known."""
    known = {name: rate for name, rate in asdict(rates).items() if rate is not None}
    return Rates(**{**asdict(NOMINAL), **known})


def feature_seconds(facts: JobFacts, devices: int, rates: Rates) -> float | None:
    """Seconds for all features; writing goes on beside computing."""
    if rates.features_flops is None:
        return None
    computing = facts.samples * facts.flops_per_sample / (devices * rates.features_flops)
    writing = 0.0
    if rates.disk_write_bandwidth is not None:
        writing = facts.store_bytes / rates.disk_write_bandwidth
    return max(computing, writing)


def gram_seconds(road: Road, rates: Rates) -> float | None:
    """Seconds to form the kernels; reading goes on beside arithmetic."""
    return _slowest(
        (road.gram_flops / road.workers, rates.gemm_flops),
        (road.gram_read_bytes, rates.disk_bandwidth),
    )


def solve_seconds(road: Road, rates: Rates) -> float | None:
    """Seconds to solve for the whole path; the network waits for the arithmetic."""
    working = _slowest(
        (road.solve_flops / road.workers, rates.gemm64_flops),
        (road.solve_memory_bytes / road.workers, rates.memory_bandwidth),
        (road.solve_disk_bytes, rates.disk_bandwidth),
    )
    sending = _slowest((road.network_bytes / road.workers, rates.network_bandwidth))
    return None if working is None or sending is None else working + sending


def road_seconds(road: Road, rates: Rates) -> float | None:
    """Seconds for kernels and path together."""
    gram, solve = gram_seconds(road, rates), solve_seconds(road, rates)
    return None if gram is None or solve is None else gram + solve


def _slowest(*parts: tuple[float, float | None]) -> float | None:
    """The longest of several things that go on at once; None when a rate it needs is unknown."""
    seconds = []
    for amount, rate in parts:
        if amount == 0:
            continue
        if rate is None:
            return None
        seconds.append(amount / rate)
    return max(seconds, default=0.0)
