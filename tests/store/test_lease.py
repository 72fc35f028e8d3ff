import json
import multiprocessing
import time

import pytest

from pipeline.store import lease as leases
from pipeline.store.lease import live_leases, take_lease
from pipeline.store.place import place_at


@pytest.fixture
def place(tmp_path):
    return place_at(tmp_path)


def test_only_one_of_two_jobs_gets_a_lease(place):
    with take_lease(place, "00003", "one"):
        assert take_lease(place, "00003", "two") is None
        assert live_leases(place)["00003"].owner == "one"
        with take_lease(place, "00004", "two"):
            pass
    assert live_leases(place) == {}
    with take_lease(place, "00003", "two"):
        pass


def test_another_worker_of_the_same_job_takes_over(place):
    with take_lease(place, "00003", "one"), take_lease(place, "00003", "one") as again:
        assert again is not None


def test_an_expired_lease_is_anybodys(place, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(leases, "RENEWALS", 0.001)  # never in this test
    take_lease(place, "00003", "gone")
    assert take_lease(place, "00003", "two") is None
    time.sleep(0.3)
    assert take_lease(place, "00003", "two") is not None
    assert take_lease(place, "00003", "three") is None


def test_a_lease_at_work_is_renewed(place, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.4)
    with take_lease(place, "00003", "one"):
        time.sleep(0.8)
        assert take_lease(place, "00003", "two") is None


def test_a_failed_holder_lets_others_try_at_once(place):
    with pytest.raises(ZeroDivisionError), take_lease(place, "00003", "one"):
        _ = 1 / 0
    assert take_lease(place, "00003", "two") is not None


@pytest.mark.parametrize("content", ["", "lease", "[]", "{}", '{"owner": "one", "until": "x"}'])
def test_a_damaged_lease_is_nobodys(place, content):
    place.write("leases/00003.0", content.encode())
    assert live_leases(place) == {}
    with take_lease(place, "00003", "two") as lease:
        assert lease is not None
        assert take_lease(place, "00003", "three") is None


def _take_and_die(folder):
    take_lease(place_at(folder), "00003", "killed")


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(place, tmp_path):
    worker = multiprocessing.get_context("spawn").Process(target=_take_and_die, args=(tmp_path,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert take_lease(place, "00003", "two") is not None


def test_a_process_number_of_another_machine_says_nothing(place, tmp_path):
    take_lease(place, "00003", "elsewhere")
    file = next(tmp_path.glob("leases/00003.*"))
    holder = json.loads(file.read_text())
    file.write_text(json.dumps({**holder, "machine": "another", "pid": 2**22 + 1}))
    assert take_lease(place, "00003", "two") is None


def _race(folder, start, won):
    place = place_at(folder)
    start.wait()
    for name in range(50):
        if take_lease(place, str(name), f"{won.value}-{time.time_ns()}") is not None:
            with won.get_lock():
                won.value += 1
    time.sleep(0.5)  # a lease of a living process counts


@pytest.mark.slow
def test_of_many_who_race_for_a_lease_one_wins(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, won = context.Event(), context.Value("i", 0)
    racers = [context.Process(target=_race, args=(tmp_path, start, won)) for _ in range(4)]
    for racer in racers:
        racer.start()
    start.set()
    for racer in racers:
        racer.join()
    assert won.value == 50
