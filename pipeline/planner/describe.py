"""The plan as rows of text, for whoever prints them."""

from pipeline.planner.machine import Rates
from pipeline.planner.plan import Plan
from pipeline.planner.roads import Road
from pipeline.planner.timing import or_nominal, road_seconds
from pipeline.planner.units import bytes_text, flops_text, seconds_text


def plan_rows(plan: Plan) -> list[tuple[str, str]]:
    """(what, how much) of a plan, the order in which things happen."""
    road = plan.road
    disk = "free space unknown" if plan.disk_limit is None else bytes_text(plan.disk_limit)
    rows = [
        ("workers", f"{plan.workers} × {plan.threads} threads ({plan.executor}, {plan.device})"),
        ("batch size", f"{plan.batch_size} samples"),
        ("shards", f"{plan.shards} of up to {plan.rows_per_shard} samples"),
        ("memory of a worker", _of(plan.worker_bytes, bytes_text(plan.worker_limit))),
        ("memory for the kernel", _of(plan.driver_bytes, bytes_text(plan.driver_limit))),
        ("features on disk", bytes_text(plan.store_bytes)),
        ("kernels on disk", bytes_text(plan.kernel_bytes)),
        ("disk in all", _of(plan.store_bytes + plan.kernel_bytes, disk)),
        ("feature arithmetic", flops_text(plan.feature_flops)),
        (
            "kernel arithmetic",
            f"{flops_text(road.gram_flops)}, reads {bytes_text(road.gram_read_bytes)}",
        ),
        ("solve", f"{road.method}, {road.steps} products, {flops_text(road.solve_flops)}"),
        ("strategy", plan.strategy),
    ]
    rows += [(f"time of {stage}", seconds_text(value)) for stage, value in plan.seconds.items()]
    return rows + [("because", reason) for reason in plan.reasons]


ROAD_COLUMNS = (
    "road",
    "memory a process",
    "disk",
    "kernel FLOP",
    "products",
    "solve FLOP",
    "read while solving",
    "network",
    "time",
    "fits",
)


def road_rows(plan: Plan, rates: Rates | None = None) -> list[tuple[str, ...]]:
    """One row a road under :data:`ROAD_COLUMNS`; the chosen one is marked with an asterisk.

    Times at ordinary rates, where none were measured, are marked with a tilde.
    """
    return [_cells(road, road is plan.road, rates or Rates()) for road in plan.roads]


def _cells(road: Road, chosen: bool, rates: Rates) -> tuple[str, ...]:
    return (
        f"{road.strategy} *" if chosen else road.strategy,
        bytes_text(road.process_bytes),
        bytes_text(road.disk_bytes),
        flops_text(road.gram_flops),
        f"{road.steps} ({road.method})",
        flops_text(road.solve_flops),
        bytes_text(road.solve_disk_bytes),
        bytes_text(road.network_bytes),
        _time(road, rates),
        "yes" if road.fits else "no",
    )


def _time(road: Road, rates: Rates) -> str:
    known = road_seconds(road, rates)
    if known is not None:
        return seconds_text(known)
    ordinary = road_seconds(road, or_nominal(rates))
    return "unknown" if ordinary is None else f"~{seconds_text(ordinary)}"


def _of(amount: int, limit: str) -> str:
    return f"{bytes_text(amount)} of {limit}"
