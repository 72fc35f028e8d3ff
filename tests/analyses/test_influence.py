import pytest
import torch
from reference import dense_ridge
from small_kernels import features, one_hot

from pipeline.analyses.influence import influence_machine
from pipeline.types import InputError

RIDGE = 0.03


@pytest.fixture
def problem():
    phi, Y = features(37, seed=1), one_hot(30, 3) - 1 / 3
    K, K_cross = phi[:30] @ phi[:30].T, phi[30:] @ phi[:30].T
    return K, K_cross, Y, influence_machine(K, Y, RIDGE)


def refit_without(K, K_cross, Y, rows):
    kept = [i for i in range(len(K)) if i not in rows]
    return K_cross[:, kept] @ dense_ridge(K[kept][:, kept], Y[kept], RIDGE)


def test_contributions_add_up_to_the_prediction(problem):
    K, K_cross, Y, machine = problem
    output = torch.arange(7) % 3
    found = machine.contributions(K_cross, output).sum(dim=1)
    expected = (K_cross @ dense_ridge(K, Y, RIDGE))[torch.arange(7), output]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_leave_one_out_changes_equal_refits_without_each_row(problem):
    K, K_cross, Y, machine = problem
    output = torch.arange(7) % 3
    found = machine.leave_one_out(K_cross, output)
    whole = machine.predictions(K_cross)
    for i in range(30):
        expected = (whole - refit_without(K, K_cross, Y, [i]))[torch.arange(7), output]
        torch.testing.assert_close(found[:, i], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rows", [[3], [0, 7, 11, 29], list(range(29))])
def test_leaving_out_a_group_equals_refitting_without_it(problem, rows):
    K, K_cross, Y, machine = problem
    found = machine.predictions(K_cross) - machine.without(K_cross, rows)
    expected = refit_without(K, K_cross, Y, rows)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rows", [[], [1, 1], [30], [-1], list(range(30))])
def test_groups_that_cannot_be_left_out_are_refused(problem, rows):
    with pytest.raises(InputError, match="row"):
        problem[3].without(problem[1], rows)


def test_an_output_that_is_not_there_is_refused(problem):
    with pytest.raises(InputError, match=r"outputs are 0 … 2"):
        problem[3].leave_one_out(problem[1], torch.full((7,), 3))
