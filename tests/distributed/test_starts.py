"""Workers that cannot start, without any cluster."""

import pytest

from pipeline.distributed import starts
from pipeline.distributed.executor import WorkerFailedError
from pipeline.distributed.starts import Starts


def failed(book: Starts, worker: int, *, others: bool) -> bool:
    return book.failed(worker, "no memory left", others=others)


def test_a_worker_rests_after_three_failed_starts_and_is_tried_once_at_a_time(monkeypatch):
    monkeypatch.setattr(starts, "REST_SECONDS", 0.0)
    book = Starts()
    assert [failed(book, 1, others=True) for _ in range(3)] == [True, True, False]
    assert book.rested() == [1]
    assert book.rested() == []
    assert not failed(book, 1, others=True)
    assert book.rested() == [1]


def test_a_rest_takes_its_time():
    book = Starts()
    assert [failed(book, 1, others=True) for _ in range(3)] == [True, True, False]
    assert book.rested() == []


def test_the_run_ends_when_the_last_worker_cannot_start():
    book = Starts()
    for _ in range(2):
        failed(book, 0, others=False)
    with pytest.raises(WorkerFailedError, match="in 3 attempts; the last error: no memory left"):
        failed(book, 0, others=False)


def test_a_worker_that_started_is_forgiven():
    book = Starts()
    for _ in range(2):
        failed(book, 0, others=True)
    book.succeeded(0)
    assert failed(book, 0, others=True)
