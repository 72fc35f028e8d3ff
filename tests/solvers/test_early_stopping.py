import pytest
import torch
from reference import iterate_descent, iterate_nesterov

from pipeline.solvers.early_stopping import early_stopping, stopping_curve
from pipeline.solvers.trajectory import trajectory
from pipeline.types import InputError


@pytest.mark.parametrize("solver", ["auto", "lanczos", "eigh", "plain"])
@pytest.mark.parametrize("dynamics", ["nesterov", "descent"])
def test_every_road_records_the_plain_iterates(problem, solver, dynamics):
    path = trajectory(
        problem.K, problem.Y, 0.001, [1, 20, 300], dynamics=dynamics, solver=solver,
        ridge_scale="absolute",
    )  # fmt: skip
    iterate = iterate_nesterov if dynamics == "nesterov" else iterate_descent
    predictions = list(path.predictions(problem.K_val))
    for place, t in enumerate([1, 20, 300]):
        expected = iterate(problem.K, problem.Y, 0.001, path.lambda_max, t)
        alpha = path.dual_weights(t)
        assert float((alpha - expected).norm() / expected.norm()) < 1e-5
        torch.testing.assert_close(
            predictions[place], problem.K_val @ expected, rtol=1e-5, atol=1e-7
        )


def test_the_choice_is_the_first_iteration_within_one_standard_error(problem):
    found = early_stopping(
        problem.K, problem.Y, 0.0, problem.K_val, problem.score, max_iterations=500
    )
    best = max(range(len(found.values)), key=lambda i: found.values[i])
    place = found.iterations.index(found.iteration)
    grades = [problem.score(rows) for rows in found.trajectory.predictions(problem.K_val)]
    assert place <= best
    assert place == best or grades[place].ties(grades[best])
    assert not any(grade.ties(grades[best]) for grade in grades[:place])
    assert problem.score(problem.K_val @ found.dual_weights).value == pytest.approx(found.value)


def test_other_splits_are_scored_along_the_finished_trajectory(problem):
    found = early_stopping(
        problem.K, problem.Y, 0.01, problem.K_val, problem.score, max_iterations=100
    )
    curve = stopping_curve(found.trajectory, problem.K_val, problem.score)
    assert [t for t, _, _ in curve] == found.iterations
    assert [value for _, value, _ in curve] == pytest.approx(found.values)


def test_an_unsettled_basis_falls_back_to_the_recursion(problem, monkeypatch):
    monkeypatch.setattr("pipeline.solvers.lanczos.CHECKPOINTS", (2, 3))
    path = trajectory(problem.K, problem.Y, 0.0, [200])
    assert path.solver == "nesterov"
    with pytest.raises(InputError, match="gradient flow"):
        trajectory(problem.K, problem.Y, 0.0, [200], dynamics="flow")


def test_iterations_must_ascend_from_one(problem):
    for wrong in ([], [0, 1], [3, 2], [2, 2]):
        with pytest.raises(InputError, match="ascending"):
            trajectory(problem.K, problem.Y, 0.0, wrong)
