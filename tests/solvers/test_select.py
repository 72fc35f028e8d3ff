import numpy as np
import pytest
import torch

from pipeline.solvers.select import accuracy, one_standard_error, squared_error


def test_ties_within_one_standard_error_go_to_the_first():
    values, stderrs = [0.5, 0.71, 0.72, 0.6], [0.02] * 4
    assert one_standard_error(values, stderrs) == 1
    assert one_standard_error(values, [0.0] * 4) == 2


def test_what_does_not_count_cannot_win():
    assert one_standard_error([0.9, 0.5, 0.6], [0.0] * 3, [False, True, True]) == 2
    with pytest.raises(ValueError, match="no candidate"):
        one_standard_error([0.9], [0.0], [False])


def test_accuracy_adds_the_mean_back():
    score = accuracy(np.array([0, 1, 1, 1]), torch.tensor([0.0, 0.5]))
    predictions = torch.tensor([[0.4, 0.0], [0.4, 0.0], [0.6, 0.0], [0.0, 0.0]])
    value, stderr = score(predictions)
    assert value == 0.5
    assert stderr == pytest.approx(0.25)


def test_squared_error_is_negative_with_a_standard_error_over_rows():
    Y = torch.tensor([[1.0], [3.0]])
    value, stderr = squared_error(Y, torch.tensor([2.0]))(torch.tensor([[0.0], [2.0]]))
    assert value == pytest.approx(-1.0)
    assert stderr == pytest.approx(0.0)
    assert squared_error(Y[:1], torch.tensor([2.0]))(torch.zeros(1, 1))[1] == 0.0
