"""Fixtures that every room's tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets and weights (``ENTK_DATA``); skips where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ENTK_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no real data: set ENTK_DATA to the folder described in the README")
    os.environ.setdefault("ENTK_DATA", str(folder))
    return folder


@pytest.fixture(scope="session")
def ray_cluster():
    """A Ray of this machine that the executors find running and must leave running."""
    ray = pytest.importorskip("ray")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "disabled")
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    patch.delenv("RAY_ADDRESS", raising=False)
    # Workers import the block functions of the tests by name.
    folder = Path(__file__).parent / "distributed"
    path = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    patch.setenv("PYTHONPATH", path)
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=80 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    yield
    ray.shutdown()
    patch.undo()


@pytest.fixture(scope="session")
def ray_executor(ray_cluster):
    """One executor for the session: its actors stay warm from test to test."""
    from pipeline.distributed.ray import RayExecutor

    with RayExecutor(workers=2, threads=1) as executor:
        yield executor


@pytest.fixture
def free_cluster(ray_executor):
    """The same Ray with its CPUs free, for tests that make executors of their own."""
    ray_executor.stop_workers()
