"""Facts that hold for every executor."""

import numpy as np
import pytest
import torch
from block_functions import (
    fail_once,
    fail_to_start,
    leave_the_end,
    missing_extra,
    poisoned,
    refuse_to_start,
    report_threads,
    user_error,
    write_products,
)

from pipeline.artefact import CorruptArtefactError
from pipeline.distributed.executor import BlockFailedError, Outcome
from pipeline.distributed.local import LocalExecutor
from pipeline.types import InputError, MissingExtraError


def test_every_block_is_done_once_and_reported_once(executor, spec):
    events = []
    outcome = executor.run(write_products, spec, range(7), events.append)
    assert sorted(event.block for event in events) == list(range(7))
    assert [spec.attempts(block) for block in range(7)] == [1] * 7
    assert (outcome.blocks, outcome.retries, outcome.workers_lost) == (7, 0, 0)
    assert outcome.busy_seconds == 7 * 0.5


def test_results_equal_the_reference_byte_for_byte(executor, spec, tmp_path_factory):
    reference = type(spec)(str(tmp_path_factory.mktemp("reference")))
    LocalExecutor(threads=1).run(write_products, reference, range(5), lambda _: None)
    executor.run(write_products, spec, range(5), lambda _: None)
    assert spec.results() == reference.results()
    assert len(spec.results()) == 5


def test_only_the_blocks_asked_for_are_done(executor, spec):
    executor.run(write_products, spec, [4, 2], lambda _: None)
    assert sorted(spec.results()) == ["2.npy", "4.npy"]


def test_no_blocks_is_no_work(executor, spec):
    assert executor.run(fail_to_start, spec, [], lambda _: None) == Outcome()


def test_a_block_that_fails_once_is_repeated_and_counted(executor, spec):
    events, retries = [], []
    outcome = executor.run(fail_once, spec, range(5), events.append, retries.append)
    assert sorted(event.block for event in events) == list(range(5))
    assert outcome.retries == 1
    assert [(r.block, r.attempt) for r in retries] == [(3, 1)]
    assert "OSError: the disk blinked" in retries[0].cause


def test_what_a_block_leaves_is_done_beside_the_next_one_and_repeated_when_it_fails(executor, spec):
    events = []
    outcome = executor.run(leave_the_end, spec, range(7), events.append)
    assert sorted(event.block for event in events) == list(range(7))
    assert sorted(spec.results()) == [f"{block}.npy" for block in range(7)]
    assert outcome.retries == 1


def test_a_poisoned_block_stops_the_run_by_name_after_three_attempts(executor, spec):
    with pytest.raises(BlockFailedError, match=r"block 3 failed 3 times.*divided by nothing"):
        executor.run(poisoned, spec, range(6), lambda _: None)
    assert spec.attempts(3) == 3


def test_a_poisoned_block_is_an_input_error_without_traceback_text(executor, spec):
    with pytest.raises(InputError) as caught:
        executor.run(poisoned, spec, [3], lambda _: None)
    assert "Traceback" not in str(caught.value)


def test_a_user_error_passes_through_as_it_was_and_is_not_repeated(executor, spec):
    with pytest.raises(CorruptArtefactError) as caught:
        executor.run(user_error, spec, range(6), lambda _: None)
    assert str(caught.value) == "store.root: shard 3 is damaged. Delete it."
    assert caught.value.where == "store.root"
    assert spec.attempts(3) == 1


def test_a_user_error_whose_class_takes_other_arguments_passes_through(executor, spec):
    with pytest.raises(MissingExtraError, match=r"this model needs timm.*\[vision\]"):
        executor.run(missing_extra, spec, range(6), lambda _: None)


def test_a_worker_that_refuses_to_start_says_why(executor, spec):
    with pytest.raises(InputError, match=r"model\.weights: no weights there"):
        executor.run(refuse_to_start, spec, range(4), lambda _: None)


def test_a_worker_that_cannot_start_stops_the_run(executor, spec):
    with pytest.raises((InputError, RuntimeError), match="the device is on fire"):
        executor.run(fail_to_start, spec, range(4), lambda _: None)


def test_the_executor_works_after_a_failed_run(executor, spec):
    with pytest.raises(BlockFailedError):
        executor.run(poisoned, spec, [3], lambda _: None)
    assert executor.run(write_products, spec, [0, 1], lambda _: None).blocks == 2


def test_blocks_run_on_the_threads_asked_for(executor, spec):
    events = []
    executor.run(report_threads, spec, [0, 1], events.append)
    assert [event.rows for event in events] == [1, 1]


def test_a_listener_that_raises_stops_the_run(executor, spec):
    def listener(event):
        raise LookupError("the listener")

    with pytest.raises(LookupError, match="the listener"):
        executor.run(write_products, spec, range(3), listener)


def test_local_blocks_restore_the_callers_threads(spec):
    before = torch.get_num_threads()
    wanted = 1 if before != 1 else 2
    seen = []
    LocalExecutor(threads=wanted).run(report_threads, spec, [0], lambda e: seen.append(e.rows))
    assert seen == [wanted]
    assert torch.get_num_threads() == before


def test_local_blocks_run_in_the_order_given(spec):
    order = []
    LocalExecutor(threads=1).run(write_products, spec, [5, 1, 3], lambda e: order.append(e.block))
    assert order == [5, 1, 3]


def test_a_result_is_a_plain_array(executor, spec):
    executor.run(write_products, spec, [0], lambda _: None)
    assert np.load(f"{spec.folder}/0.npy").shape == (64, 300)
