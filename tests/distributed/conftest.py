"""One Ray of two CPUs for all tests of this folder, and the executors that share one suite."""

import os
from pathlib import Path

import pytest
from block_functions import Spec

from pipeline.distributed.executor import Executor
from pipeline.distributed.local import LocalExecutor


@pytest.fixture(scope="session")
def ray_cluster():
    """A Ray of this machine that the executors find running and must leave running."""
    ray = pytest.importorskip("ray")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "disabled")
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    patch.delenv("RAY_ADDRESS", raising=False)
    # Workers import the block functions of this folder by name.
    path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
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


@pytest.fixture(params=["local", "ray"])
def executor(request) -> Executor:
    if request.param == "local":
        return LocalExecutor(threads=1)
    return request.getfixturevalue("ray_executor")


@pytest.fixture
def spec(tmp_path) -> Spec:
    return Spec(str(tmp_path))
