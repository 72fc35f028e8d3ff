"""Fixtures that every room's tests share."""

import os
import re
import sys
import urllib.request
from pathlib import Path

import pytest

from pipeline import cli


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
def bucket():
    """The URL of an empty bucket on a server of these tests that speaks S3."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
    }.items():
        patch.setenv(name, value)
    request = urllib.request.Request(f"http://{host}:{port}/features", method="PUT")
    urllib.request.urlopen(request, timeout=30).close()
    yield "s3://features"
    server.stop()
    patch.undo()


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


@pytest.fixture
def entk(monkeypatch, capsys, tmp_path):
    """The command line in this process, in an empty folder: exit code and all it printed, on one
    line."""

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["entk", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        printed = capsys.readouterr()
        return code, re.sub(r"\s+", " ", printed.out + printed.err)

    return call
