"""The reference is the run in one process; Ray's must equal it bit for bit."""

import os
import signal

import numpy as np
import psutil
import pytest
from small_runs import events, start, stores, wait_for

from pipeline.runs import RunFolder
from pipeline.store import FeatureStore

RAY = "executor={kind: ray, workers: 2, threads: 1}"


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory):
    pytest.importorskip("ray")
    base = tmp_path_factory.mktemp("ray")
    decoded = RAY.replace("}", ", decoders: 1, ahead: 2}")
    process = start(base / "run", base / "cache", decoded)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return RunFolder(base / "run")


def test_features_are_equal_bit_for_bit(on_ray, undisturbed):
    for name, path in stores(on_ray).items():
        ours, reference = FeatureStore.open(path), FeatureStore.open(stores(undisturbed)[name])
        columns = slice(0, ours.shape[1])
        assert np.array_equal(ours.panel(columns), reference.panel(columns)), name
        assert np.array_equal(ours.penultimate(), reference.penultimate()), name


def test_metrics_are_equal_byte_for_byte(on_ray, undisturbed):
    assert on_ray.metrics.read_bytes() == undisturbed.metrics.read_bytes()


def test_a_killed_worker_costs_only_its_blocks(undisturbed, tmp_path):
    folder = RunFolder(tmp_path / "run")
    process = start(folder.path, tmp_path / "cache", RAY)

    def workers():
        children = psutil.Process(process.pid).children(recursive=True)
        return [c for c in children if "ray::" in " ".join(c.cmdline() or [c.name()])]

    def featurizers():
        try:
            return [c for c in workers() if "Worker" in " ".join(c.cmdline())]
        except psutil.Error:
            return []

    victim = wait_for(featurizers, 90)[0]
    os.kill(victim.pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    assert folder.metrics.read_bytes() == undisturbed.metrics.read_bytes()
    assert events(folder, "run_done")
