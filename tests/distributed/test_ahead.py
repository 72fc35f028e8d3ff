import threading
import time

import pytest

from pipeline.distributed.ahead import Ahead, HangingError


def test_results_come_in_order():
    assert list(Ahead(lambda i: i * i, range(20), depth=3)) == [i * i for i in range(20)]


def test_no_more_than_the_depth_is_made_ahead():
    made = []
    results = iter(Ahead(lambda i: made.append(i) or i, range(20), depth=2))
    next(results)
    time.sleep(0.5)
    assert len(made) <= 4  # the one taken, two waiting, one in hand


def test_an_error_is_raised_where_its_result_is_asked_for():
    results = iter(Ahead(lambda i: 1 // (i - 1), range(3)))
    assert next(results) == -1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_result_that_does_not_come_is_an_error_in_time():
    never = threading.Event()
    with pytest.raises(HangingError, match=r"nothing came within 0.2 s"):
        list(Ahead(lambda i: never.wait(10), range(3), timeout=0.2))


def test_the_thread_ends_when_nobody_wants_its_results():
    before = threading.active_count()
    results = iter(Ahead(lambda i: i, range(1000)))
    next(results)
    results.close()
    time.sleep(0.5)
    assert threading.active_count() == before
