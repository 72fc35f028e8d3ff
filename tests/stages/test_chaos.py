"""Three nodes on one machine, and what befalls a cluster: the metrics stay what they were."""

import os
import random
import signal
import time

import psutil
import pytest
from slow_network import SECONDS
from small_runs import ROOT, run, start, wait_for

from pipeline.runs import RunFolder
from pipeline.stages.status import read_events

SMALL_NODE = {"num_cpus": 2, "object_store_memory": 80 * 2**20}

SLOW = (
    f"model={{kind: factory, path: {ROOT}/tests/stages/slow_network.py:network}}",
    "pretrain=null",
    "sketch.size=100",
    "features.batch_size=16",
)
"""80 batches over nine shards."""

SPAN = 4.0
"""Seconds in which fates strike: about what the shards take."""


class Nodes:
    """A head without CPUs and two nodes that compute."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {**SMALL_NODE, "num_cpus": 0}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self._computing = [self.cluster.add_node(**SMALL_NODE) for _ in range(2)]
        self.cluster.wait_for_nodes()

    @property
    def executor(self) -> str:
        of_each = "workers: 2, threads: 1, decoders: 2"
        return f"executor={{kind: ray, {of_each}, address: '{self.cluster.address}'}}"

    def replace(self, which: int) -> None:
        """Lose a node and all on it; another one comes."""
        self.cluster.remove_node(self._computing.pop(which), allow_graceful=False)
        self._computing.append(self.cluster.add_node(**SMALL_NODE))

    def workers(self) -> list[psutil.Process]:
        family = psutil.Process().children(recursive=True)
        return [process for process in family if _is_worker(process)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "ray::BlockWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture(scope="module")
def nodes():
    pytest.importorskip("ray")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "disabled")
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv(SECONDS, "0.1")
    patch.delenv("RAY_ADDRESS", raising=False)
    started = Nodes()
    yield started
    started.cluster.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> RunFolder:
    """The same job in this process, undisturbed."""
    base = tmp_path_factory.mktemp("quiet")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(SECONDS, raising=False)
        return run(base / "run", base / "cache", *SLOW)


def kill_a_worker(nodes, job, chance):
    os.kill(chance.choice(wait_for(nodes.workers)).pid, signal.SIGKILL)


def kill_a_node(nodes, job, chance):
    nodes.replace(chance.randrange(2))


def kill_the_driver(nodes, job, chance):
    job.kill()


FATES = (kill_a_worker, kill_a_node, kill_the_driver)


def starts(folder, cache) -> bool:
    """Whether workers are being started."""
    return any(e.get("stage") == "features" for e in read_events(folder.events))


def works(folder, cache) -> bool:
    """Whether a worker has begun a shard."""
    return any(cache.glob("*/leases/0*"))


def struck(nodes, tmp_path, fates, seed, since=works) -> RunFolder:
    """A job that meets its fates at seeded moments, continued if need be."""
    chance = random.Random(seed)
    folder, cache = RunFolder(tmp_path / "run"), tmp_path / "cache"
    job = start(folder.path, cache, *SLOW, nodes.executor)
    wait_for(lambda: since(folder, cache), 120)
    for fate in fates:
        time.sleep(chance.uniform(0.0, SPAN / len(fates)))
        assert job.poll() is None, "it ended before its fate"
        fate(nodes, job, chance)
    output, _ = job.communicate(timeout=300)
    if kill_the_driver in fates:
        job = start(folder.path, cache, *SLOW, nodes.executor)
        output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    return folder


@pytest.mark.timeout(600)
def test_losing_a_worker_a_node_and_the_driver_leaves_the_metrics_as_they_were(
    nodes, quiet, tmp_path
):
    folder = struck(nodes, tmp_path, FATES, seed=0)
    assert folder.metrics.read_bytes() == quiet.metrics.read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(20))
def test_metrics_survive_a_soak(nodes, quiet, tmp_path, seed):
    folder = struck(nodes, tmp_path, [FATES[seed % 3]], 100 + seed, since=(starts, works)[seed % 2])
    assert folder.metrics.read_bytes() == quiet.metrics.read_bytes()
