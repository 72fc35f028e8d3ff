import pytest
import torch
from group_functions import gather_and_add, hold_rows, refuse, second_worker_dies

from pipeline.types import InputError


@pytest.fixture
def group(free_cluster):
    from pipeline.distributed.ray_group import RayGroup

    with RayGroup(workers=2, threads=1) as found:
        found.prepare(hold_rows, 7)
        yield found


def test_workers_gather_add_and_refuse_and_count_what_they_send(group):
    gathered, total, sent = group.call(gather_and_add, 2.0)
    assert torch.equal(gathered[:, 0], 2.0 * torch.arange(7, dtype=torch.float64))
    assert total == 21.0
    # Shares of 3 and 4 rows, the shorter one filled up; one number added by two.
    assert sent == 4 * 8 + 8
    group.prepare(hold_rows, 4)
    assert group.call(gather_and_add, 1.0)[1] == 6.0
    with pytest.raises(InputError, match=r"kernel\.size: too large"):
        group.call(refuse, "too large")


def test_a_dead_worker_is_a_clear_error(group):
    from pipeline.distributed.ray_group import GroupFailedError

    with pytest.raises(
        GroupFailedError, match=r"(?s)worker 1 of 2.* was lost: .*same command"
    ) as error:
        group.call(second_worker_dies, None)
    assert error.value.worker == 1
