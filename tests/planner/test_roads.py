from dataclasses import replace

import pytest

from pipeline.gram.memory import gram_bytes
from pipeline.planner.roads import KernelProblem, all_roads

GIB = 2**30


@pytest.fixture
def problem() -> KernelProblem:
    return KernelProblem(
        n=5000,
        m=8000,
        fitted=5000,
        p=100_000,
        k=20,
        itemsize=2,
        workers=4,
        process_bytes=64 * GIB,
        disk_bytes=None,
    )


def roads(problem):
    return {road.strategy: road for road in all_roads(problem)}


def test_one_worker_has_no_shards():
    alone = KernelProblem(
        n=10, m=0, fitted=10, p=10, k=1, itemsize=2, workers=1, process_bytes=GIB, disk_bytes=None
    )
    assert set(roads(alone)) == {"memory", "disk", "matrix_free"}


def test_the_triangle_and_the_cross_kernels_are_counted_once(problem):
    n, m, p = 5000, 8000, 100_000
    assert roads(problem)["memory"].gram_flops == n * n * p + 2 * n * m * p
    assert roads(problem)["memory"].gram_read_bytes == (n + m) * p * 2


def test_memory_is_what_the_gram_says(problem):
    assert roads(problem)["memory"].process_bytes == gram_bytes(5000, 8000, p=100_000)


def test_traffic_of_sharded_and_matrix_free_steps_is_the_formula(problem):
    found = roads(problem)
    steps = found["sharded"].steps
    assert found["sharded"].network_bytes == steps * 3 * 5000 * 20 * 8
    assert found["matrix_free"].network_bytes == steps * 2 * 3 * 100_000 * 20 * 8


def test_shards_divide_the_memory(problem):
    few = roads(replace(problem, n=50_000, fitted=50_000))["sharded"]
    many = roads(replace(problem, n=50_000, fitted=50_000, workers=32))["sharded"]
    assert many.process_bytes < 0.6 * few.process_bytes  # the panels of all rows remain


def test_features_that_fit_are_read_once_and_others_at_every_product(problem):
    resident = roads(problem)["matrix_free"]
    assert resident.solve_disk_bytes == 0
    streamed = roads(replace(problem, process_bytes=600 * 2**20, workers=1))["matrix_free"]
    assert streamed.fits
    assert streamed.solve_disk_bytes == streamed.steps * 5000 * 100_000 * 2


def test_less_memory_makes_more_passes_over_the_features(problem):
    reads = [
        roads(replace(problem, process_bytes=size))["disk"].gram_read_bytes
        for size in (8 * GIB, GIB // 2, 9 * GIB // 20)
    ]
    assert reads[0] < reads[1] < reads[2]


def test_a_basis_that_does_not_fit_gives_way_to_conjugate_gradients(problem):
    wide = replace(problem, n=300_000, fitted=300_000, k=1000, workers=1, process_bytes=80 * GIB)
    assert roads(wide)["matrix_free"].method == "cg"
    assert roads(replace(wide, workers=64))["matrix_free"].method == "lanczos"


def test_small_kernels_are_diagonalized(problem):
    assert roads(replace(problem, n=800, fitted=800))["memory"].method == "eigh"


def test_a_final_fit_on_more_rows_needs_more(problem):
    refitted = replace(problem, n=30_000, fitted=33_000, m=5000)
    plain = replace(refitted, fitted=30_000)
    assert roads(refitted)["memory"].process_bytes > roads(plain)["memory"].process_bytes
    assert roads(refitted)["memory"].disk_bytes > roads(plain)["memory"].disk_bytes


def test_a_road_that_does_not_fit_says_what_it_lacks(problem):
    tight = roads(replace(problem, process_bytes=GIB // 4, disk_bytes=10**6))["disk"]
    assert not tight.fits
    assert "256.0 MiB allowed" in tight.reason
    assert "976.6 KiB left for kernels" in tight.reason
