import numpy as np
import pytest
import torch

from pipeline.solvers.select import Grade, accuracy, one_standard_error, squared_error


def graded(*rows: list[float]) -> list[Grade]:
    return [Grade(torch.tensor(row)) for row in rows]


def test_ties_within_one_standard_error_go_to_the_first():
    grades = graded([0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 0])
    assert one_standard_error(grades) == 1
    assert one_standard_error(graded([0.5], [0.6], [0.7], [0.7])) == 2


def test_a_tie_is_judged_by_the_rows_that_differ():
    best = np.arange(400) % 2
    worse = best.copy()
    worse[1:20:2] = 0  # ten rows lost and none won: five per cent of the score
    [worse_grade, best_grade] = graded(worse.tolist(), best.tolist())
    assert best_grade.value - worse_grade.value == pytest.approx(best_grade.stderr)
    assert not worse_grade.ties(best_grade)
    moved = np.roll(best, 1)
    moved[0:8:2] = 0  # nearly as good, and on other rows
    assert graded(moved.tolist())[0].ties(best_grade)


def test_what_does_not_count_cannot_win():
    grades = graded([0.9], [0.5], [0.6])
    assert one_standard_error(grades, [False, True, True]) == 2
    with pytest.raises(ValueError, match="no candidate"):
        one_standard_error(grades[:1], [False])


def test_a_candidate_without_a_finite_grade_loses():
    assert one_standard_error(graded([-float("inf")], [-2.0], [-1.0])) == 2


def test_accuracy_adds_the_mean_back():
    score = accuracy(np.array([0, 1, 1, 1]), torch.tensor([0.0, 0.5]))
    grade = score(torch.tensor([[0.4, 0.0], [0.4, 0.0], [0.6, 0.0], [0.0, 0.0]]))
    assert grade.value == 0.5
    assert grade.stderr == pytest.approx(0.25)


def test_squared_error_is_negative_with_a_standard_error_over_rows():
    Y = torch.tensor([[1.0], [3.0]])
    score = squared_error(Y, torch.tensor([2.0]))
    grade = score(torch.tensor([[0.0], [2.0]]))
    assert grade.value == pytest.approx(-1.0)
    assert grade.stderr == pytest.approx(0.0)
    assert squared_error(Y[:1], torch.tensor([2.0]))(torch.zeros(1, 1)).stderr == 0.0
