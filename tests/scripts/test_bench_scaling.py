"""The benchmark of scaling, small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_scaling.py"


def printed(*arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict = json.loads(done.stdout.splitlines()[-1])
    return figures


def test_finished_shards_are_scanned():
    figures = printed("--repeats", "0", "--scan", "20")
    assert figures["scan_shards"] == 20
    assert 0 < figures["scan_seconds"] < 5


@pytest.mark.slow
def test_a_quick_pass_compares_ray_with_this_process(real_data, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    figures = printed("--quick")
    assert set(figures["seconds"]) == {"bare", "in process", "ray 1"}
    assert 0 <= figures["idle_share"]["ray 1"] < 1
    assert figures["overhead_of_ray_and_zarr"] > -1
