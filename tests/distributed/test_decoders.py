"""Actors that load for others: in order, no more at once than asked for, and what goes wrong."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from block_functions import Spec, load_requests

from pipeline.distributed.ahead import HangingError
from pipeline.types import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("decoders")


@pytest.fixture(scope="module")
def decoders(ray_executor, folder):
    import ray

    from pipeline.distributed.decoders import start_decoders, stop_decoders

    ray_executor.stop_workers()
    decoders = start_decoders(2, 3, load_requests, Spec(str(folder)), folder / "logs")
    ray.get(list(decoders.started), timeout=60.0)
    yield decoders
    stop_decoders(decoders)


def begun(folder: Path) -> int:
    return len(list(folder.glob("begun-*")))


def test_loads_come_in_order_and_few_are_made_ahead(decoders, folder):
    loads = decoders.stream([str(i) for i in range(12)], timeout=60.0)
    stream = iter(loads)
    assert next(stream) == "loaded 0"
    deadline = time.monotonic() + 30.0
    while loads.ready() < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert loads.ready() == 3
    assert begun(folder) == 4  # the one taken, three ahead
    assert list(stream) == [f"loaded {i}" for i in range(1, 12)]
    assert {file.name for file in (folder / "logs").iterdir()} == {
        "decoder-000.log",
        "decoder-001.log",
    }


def test_decoders_without_a_cpu_are_asked_for_nothing(decoders, folder):
    from pipeline.distributed.decoders import start_decoders, stop_decoders

    waiting = start_decoders(1, 3, load_requests, Spec(str(folder)), folder / "logs")
    try:  # the two of this file have both CPUs
        assert waiting.stream(["1"], timeout=5.0) is None
        actors, started = waiting.actors + decoders.actors, waiting.started + decoders.started
        both = replace(decoders, actors=actors, started=started)
        many = [str(i) for i in range(12)]
        assert list(both.stream(many, timeout=5.0)) == [f"loaded {i}" for i in many]
    finally:
        stop_decoders(waiting)


def test_a_slow_decoder_gets_less_to_do(decoders, folder):
    many = replace(decoders, ahead=8)
    slow = next(iter(many.stream(["pid"], timeout=60.0)))
    (folder / "slow").write_text(slow)
    assert list(many.stream(["pid"] * 24, timeout=60.0)).count(slow) <= 9


def test_errors_of_a_decoder_are_those_of_its_worker(decoders):
    from pipeline.distributed.decoders import LoadingError

    with pytest.raises(InputError, match="no such sample"):
        list(decoders.stream(["refuse"], timeout=60.0))
    with pytest.raises(LoadingError, match="KeyError: 'lost'"):
        list(decoders.stream(["fail"], timeout=60.0))


def test_a_hanging_decoder_is_an_error_in_time_and_serves_again(decoders):
    with pytest.raises(HangingError, match=r"nothing came within 0.5 s"):
        list(decoders.stream(["hang"], timeout=0.5))
    assert list(decoders.stream(["4", "5"], timeout=60.0)) == ["loaded 4", "loaded 5"]


def test_what_a_killed_decoder_had_begun_is_asked_for_again_and_it_starts_again(decoders):
    (pid,) = decoders.stream(["pid"], timeout=60.0)
    os.kill(int(pid), signal.SIGKILL)
    assert list(decoders.stream(["4", "5"], timeout=60.0)) == ["loaded 4", "loaded 5"]
    serving: set[str] = set()
    deadline = time.monotonic() + 60.0
    while len(serving) < 2 and time.monotonic() < deadline:
        serving = set(decoders.stream(["pid"] * 8, timeout=60.0)) - {pid}
    assert len(serving) == 2  # another was started in its place
