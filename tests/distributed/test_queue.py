from pipeline.distributed.queue import BlockQueue


def test_blocks_leave_in_the_order_given():
    queue = BlockQueue([7, 3, 5, 1], workers=1)
    order = []
    while queue.unfinished:
        block = queue.next_for(0)
        order.append(block)
        queue.finished(0, block)
    assert order == [7, 3, 5, 1]


def test_a_worker_holds_at_most_two_blocks():
    queue = BlockQueue(range(10), workers=2)
    assert [queue.next_for(0) for _ in range(3)] == [0, 1, None]
    assert queue.held(0) == (0, 1)


def test_near_the_end_a_worker_holds_only_one():
    queue = BlockQueue(range(4), workers=2)
    assert [queue.next_for(worker) for worker in (0, 0, 1, 1)] == [0, 1, 2, None]
    queue = BlockQueue(range(2), workers=2)
    assert [queue.next_for(0), queue.next_for(0), queue.next_for(1)] == [0, None, 1]


def test_a_lost_workers_blocks_come_next_and_the_running_one_is_named():
    queue = BlockQueue(range(10), workers=2)
    assert [queue.next_for(0), queue.next_for(0), queue.next_for(1)] == [0, 1, 2]
    assert queue.lost(0) == 0
    queue.finished(1, 2)
    assert [queue.next_for(1), queue.next_for(0)] == [0, 1]


def test_blocks_of_a_lost_worker_go_out_alone():
    queue = BlockQueue(range(10), workers=1)
    assert [queue.next_for(0), queue.next_for(0)] == [0, 1]
    queue.lost(0)
    assert [queue.next_for(0), queue.next_for(0)] == [0, None]
    queue.finished(0, 0)
    assert [queue.next_for(0), queue.next_for(0)] == [1, None]
    queue.finished(0, 1)
    assert [queue.next_for(0), queue.next_for(0)] == [2, 3]


def test_a_worker_lost_without_blocks_ran_none():
    assert BlockQueue(range(3), workers=2).lost(1) is None


def test_a_failed_block_is_handed_out_next():
    queue = BlockQueue(range(9), workers=1)
    assert queue.next_for(0) == 0
    queue.failed(0, 0)
    assert queue.next_for(0) == 0
    assert queue.unfinished == 9
