"""What only Ray can suffer: dying workers, dying drivers, clusters that belong to others."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from block_functions import (
    die_always,
    die_once,
    hang_once,
    poisoned,
    slow_in_one_of_two,
    write_products,
)

from pipeline.distributed.executor import BlockFailedError
from pipeline.distributed.local import LocalExecutor
from pipeline.types import InputError


def test_a_worker_killed_in_a_block_costs_only_its_unfinished_blocks(ray_executor, spec):
    events = []
    outcome = ray_executor.run(die_once, spec, range(8), events.append)
    assert sorted(event.block for event in events) == list(range(8))
    assert outcome.workers_lost == 1
    assert outcome.retries == 1
    # The killed block begins once more and then writes; a dying worker may lose one last answer.
    assert spec.attempts(3) in (3, 4)
    assert sum(spec.attempts(block) for block in range(8) if block != 3) <= 8


def test_a_worker_that_ray_kills_for_its_memory_is_replaced(ray_executor, spec, monkeypatch):
    import ray

    get = ray.get

    def get_as_the_memory_monitor_has_it(*arguments, **options):
        try:
            return get(*arguments, **options)
        except ray.exceptions.RayActorError as error:
            raise ray.exceptions.OutOfMemoryError(str(error)) from None

    monkeypatch.setattr(ray, "get", get_as_the_memory_monitor_has_it)
    outcome = ray_executor.run(die_once, spec, range(8), lambda _: None)
    assert (outcome.workers_lost, outcome.retries) == (1, 1)


def test_results_after_a_killed_worker_equal_the_undisturbed(ray_executor, spec, tmp_path_factory):
    reference = type(spec)(str(tmp_path_factory.mktemp("reference")))
    LocalExecutor(threads=1).run(write_products, reference, range(6), lambda _: None)
    ray_executor.run(die_once, spec, range(6), lambda _: None)
    assert spec.results() == reference.results()


def test_a_block_that_always_kills_its_worker_stops_the_run_by_name(ray_executor, spec):
    with pytest.raises(BlockFailedError, match=r"block 3 failed 3 times.*its worker died"):
        ray_executor.run(die_always, spec, range(6), lambda _: None)
    assert spec.attempts(3) in (3, 4)


def test_a_hanging_block_is_repeated_on_a_new_worker(free_cluster, spec):
    from pipeline.distributed.ray import RayExecutor

    with RayExecutor(workers=1, threads=1, block_timeout=2.0) as executor:
        outcome = executor.run(hang_once, spec, range(5), lambda _: None)
    assert (outcome.workers_lost, outcome.retries) == (1, 1)
    assert spec.attempts(3) == 3  # begun and hung; begun again, which writes


def test_a_slow_worker_gets_fewer_blocks_and_does_not_set_the_pace(ray_executor, spec):
    outcome = ray_executor.run(slow_in_one_of_two, spec, range(24), lambda _: None)
    pids = Counter(name.name.rpartition("-")[2] for name in Path(spec.folder).glob("begun-*"))
    assert min(pids.values()) <= 4
    assert outcome.work_seconds < 6  # halves would take twelve seconds


def test_a_second_run_finds_the_workers_warm(ray_executor, spec):
    ray_executor.run(write_products, spec, [0, 1], lambda _: None)
    warm = ray_executor.run(write_products, spec, [2, 3], lambda _: None)
    assert warm.startup_seconds < 0.5


def test_the_resources_of_a_running_cluster_are_read(ray_cluster):
    from pipeline.distributed.cluster import cluster_resources

    resources = cluster_resources(None)
    assert (resources.nodes, resources.cores, resources.gpus) == (1, 2, 0)
    assert resources.memory_bytes > 0


def test_a_running_ray_is_used_and_left_running(free_cluster, spec):
    import ray

    from pipeline.distributed.ray import RayExecutor

    with RayExecutor(workers=1, threads=1) as executor:
        executor.run(write_products, spec, [0], lambda _: None)
    assert ray.is_initialized()


def test_workers_log_to_files_of_their_own(free_cluster, spec, tmp_path):
    from pipeline.distributed.ray import RayExecutor

    folder = tmp_path / "logs"
    with (
        RayExecutor(workers=1, threads=1, log_folder=folder) as executor,
        pytest.raises(BlockFailedError),
    ):
        executor.run(poisoned, spec, [2, 3], lambda _: None)
    text = (folder / "worker-000.log").read_text()
    assert "worker-000 begins on" in text
    assert re.search(r"block 2: \d+ rows in ", text)
    assert "block 3 failed" in text
    assert "ZeroDivisionError" in text


def test_an_address_where_nothing_listens_is_a_clear_error():
    program = """
        from pipeline.distributed.cluster import connect
        from pipeline.types import InputError
        try:
            connect("127.0.0.1:1")
        except InputError as error:
            print("REFUSED", error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        timeout=60,
    )
    assert "REFUSED executor.address: no Ray cluster answers at '127.0.0.1:1'" in result.stdout


NODE_REMOVAL = """
    import os, threading, time
    from ray.cluster_utils import Cluster
    from block_functions import Spec, write_slowly
    from pipeline.distributed.ray import RayExecutor

    small = {{"object_store_memory": 80 * 2**20}}
    cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 0, **small}})
    nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
    cluster.wait_for_nodes()
    spec, done = Spec({folder!r}), []
    def remove_when_busy():
        while len(done) < 3:
            time.sleep(0.1)
        cluster.remove_node(nodes[0], allow_graceful=False)
    threading.Thread(target=remove_when_busy).start()
    with RayExecutor(workers=2, threads=1, address=cluster.address) as executor:
        outcome = executor.run(write_slowly, spec, range(12), done.append)
    print("DONE", sorted(event.block for event in done) == list(range(12)), outcome.workers_lost)
    cluster.shutdown()
"""


@pytest.mark.slow
def test_a_removed_node_costs_only_its_unfinished_blocks(tmp_path):
    folder = tmp_path / "blocks"
    folder.mkdir()
    program = textwrap.dedent(NODE_REMOVAL.format(folder=str(folder)))
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    environment.pop("RAY_ADDRESS", None)
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        timeout=200,
    )
    assert "DONE True 1" in result.stdout, result.stdout + result.stderr


DRIVER = """
    import sys
    sys.path.insert(0, {tests!r})
    from block_functions import Spec, sleep_long
    from pipeline.distributed.ray import RayExecutor
    with RayExecutor(workers=2, threads=1) as executor:
        executor.run(sleep_long, Spec({folder!r}), range(4), print)
"""


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_killed_driver_leaves_no_process_behind(tmp_path, how):
    tests = str(Path(__file__).parent)
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": tests}
    environment.pop("RAY_ADDRESS", None)
    program = textwrap.dedent(DRIVER.format(tests=tests, folder=str(tmp_path)))
    driver = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        _wait(lambda: len(list(tmp_path.glob("pid-*"))) == 2, 90)
        family = psutil.Process(driver.pid).children(recursive=True)
        workers = {int(file.name.removeprefix("pid-")) for file in tmp_path.glob("pid-*")}
        assert workers <= {process.pid for process in family}
        driver.send_signal(how)
        assert driver.wait(60) != 0
        _wait(lambda: not any(_computes(process) for process in family), 60)
    finally:
        driver.kill()


def _computes(process: psutil.Process) -> bool:
    """Whether the process lives and is more than one of Ray's agents.

    Those notice a raylet's sudden death within a second and then take about a minute to leave.
    """
    try:
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return alive and not any("Agent" in argument for argument in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _wait(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def test_block_failures_are_input_errors_for_the_command_line():
    assert issubclass(BlockFailedError, InputError)
