"""Memory, traffic and time of one job at other sizes and on more GPUs, from given rates."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.planner.machine import Machine
from pipeline.planner.roads import KernelProblem, Road, all_roads
from pipeline.planner.timing import gram_seconds, or_nominal, road_seconds, solve_seconds
from pipeline.planner.units import bytes_text, flops_text, seconds_text

DEVICE_SHARE = 0.9
"""Of a GPU's memory that K and the vectors may fill."""

SCALE_COLUMNS = (
    "n",
    "k",
    "devices",
    "road",
    "memory a device",
    "features",
    "read",
    "network",
    "arithmetic",
    "kernel",
    "path",
)


@dataclass(frozen=True, kw_only=True)
class ScalePoint:
    """One size on so many devices: the fastest road that fits, and all of them."""

    n: int
    k: int
    devices: int
    feature_bytes: int
    roads: tuple[Road, ...]
    best: Road | None
    """None where no road fits."""


def scale_points(
    machine: Machine,
    *,
    p: int = 500_000,
    itemsize: int = 2,
    sizes: Iterable[int] = (50_000, 300_000, 1_300_000),
    targets: Iterable[int] = (17, 100, 1000),
    devices: Iterable[int] = (1, 8, 64),
) -> list[ScalePoint]:
    """Every combination; the machine gives rates, memory of a device, and disk.

    Two other splits of a twentieth of the training rows each; the choice is made on one. Where the
    features are to lie is not asked: their bytes are in the answer.
    """
    memory = machine.gpu_memory_bytes if machine.gpus else machine.memory_bytes
    points = []
    for n in sizes:
        for k in targets:
            for workers in devices:
                problem = KernelProblem(
                    n=n,
                    m=n // 10,
                    val=n // 20,
                    largest=n // 20,
                    fitted=n,
                    p=p,
                    k=k,
                    itemsize=itemsize,
                    workers=workers,
                    process_bytes=int(DEVICE_SHARE * memory),
                    disk_bytes=machine.disk_bytes,
                )
                points.append(_point(problem, machine))
    return points


def _point(problem: KernelProblem, machine: Machine) -> ScalePoint:
    roads = all_roads(problem)
    nominal = or_nominal(machine.rates)
    fitting = [road for road in roads if road.fits]
    best = min(fitting, key=lambda road: road_seconds(road, nominal) or 0.0, default=None)
    return ScalePoint(
        n=problem.n,
        k=problem.k,
        devices=problem.workers,
        feature_bytes=problem.feature_bytes,
        roads=roads,
        best=best,
    )


def scale_rows(points: Iterable[ScalePoint], machine: Machine) -> list[tuple[str, ...]]:
    """One row a point under :data:`SCALE_COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for point in points:
        road, size = point.best, (f"{point.n:,}", f"{point.k:,}", str(point.devices))
        if road is None:
            rows.append((*size, "none fits", *[""] * (len(SCALE_COLUMNS) - 4)))
            continue
        rows.append(
            (
                *size,
                f"{road.strategy}, {road.method}",
                bytes_text(road.process_bytes),
                bytes_text(point.feature_bytes),
                bytes_text(road.gram_read_bytes + road.solve_disk_bytes),
                bytes_text(road.network_bytes),
                flops_text(road.gram_flops + road.solve_flops),
                _text(gram_seconds(road, machine.rates)),
                _text(solve_seconds(road, machine.rates)),
            )
        )
    return rows


def _text(seconds: float | None) -> str:
    return "unknown" if seconds is None else seconds_text(seconds)
