from dataclasses import replace

import pytest

from pipeline.planner.machine import Rates
from pipeline.planner.scale import SCALE_COLUMNS, scale_points, scale_rows
from pipeline.planner.timing import gram_seconds, road_seconds, solve_seconds


def test_the_table_covers_every_size_and_number_of_gpus(gpu_node):
    points = scale_points(gpu_node)
    assert len(points) == 27
    rows = scale_rows(points, gpu_node)
    assert {len(row) for row in rows} == {len(SCALE_COLUMNS)}


def test_more_gpus_are_never_slower(gpu_node):
    points = scale_points(gpu_node)

    def seconds(point):
        return road_seconds(point.best, gpu_node.rates) if point.best else float("inf")

    for size in {(point.n, point.k) for point in points}:
        times = [seconds(point) for point in points if (point.n, point.k) == size]
        assert times == sorted(times, reverse=True)


def test_gram_time_is_the_triangle_over_the_rate(gpu_node):
    fast_disk = replace(gpu_node, rates=replace(gpu_node.rates, disk_bandwidth=1e15))
    [point] = scale_points(fast_disk, sizes=[50_000], targets=[17], devices=[1])
    n, m, p = 50_000, 5_000, 500_000
    assert gram_seconds(point.roads[0], fast_disk.rates) == pytest.approx(
        (n * n * p + 2 * n * m * p) / 1e14
    )


def test_a_slow_disk_sets_the_pace_of_a_kernel_on_disk(gpu_node):
    [point] = scale_points(gpu_node, sizes=[300_000], targets=[17], devices=[1])
    disk = next(road for road in point.roads if road.strategy == "disk")
    assert solve_seconds(disk, gpu_node.rates) == pytest.approx(disk.steps * 4 * 300_000**2 / 5e9)


def test_unknown_rates_give_bytes_and_no_times(gpu_node):
    unmeasured = replace(gpu_node, rates=Rates())
    [point] = scale_points(unmeasured, sizes=[50_000], targets=[17], devices=[1])
    assert point.best is not None
    assert scale_rows([point], unmeasured)[0][-2:] == ("unknown", "unknown")


def test_a_size_that_nothing_can_hold_is_a_row_that_says_so(gpu_node):
    tiny = replace(gpu_node, gpu_memory_bytes=2**28, disk_bytes=2**30)
    points = scale_points(tiny, sizes=[1_300_000], targets=[1000], devices=[1])
    assert scale_rows(points, tiny)[0][3] == "none fits"
