import pytest
import torch
from reference import dense_ridge, iterate_descent, iterate_nesterov

from pipeline.solvers.nesterov import descent_iterates, nesterov, nesterov_iterates
from pipeline.solvers.operator import DenseKernel

TWINS = [(nesterov_iterates, iterate_nesterov), (descent_iterates, iterate_descent)]


@pytest.mark.parametrize(("ours", "plain"), TWINS)
@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_iterates_follow_the_recursion_without_restart(problem, ours, plain, ridge):
    wanted = [1, 2, 7, 150]
    operator = DenseKernel(problem.K)
    found = dict(ours(operator, problem.Y, ridge, 1.0, wanted))
    assert list(found) == wanted
    for t, alpha in found.items():
        expected = plain(problem.K, problem.Y, ridge, 1.0, t)
        rounding = 1e-11 * float(expected.abs().max())  # a BLAS sums in its own order
        torch.testing.assert_close(alpha, expected, rtol=0, atol=rounding)


def test_the_first_step_is_the_scaled_target(problem):
    operator = DenseKernel(problem.K)
    (_, alpha), *_ = nesterov_iterates(operator, problem.Y, 0.5, 1.0, [1])
    torch.testing.assert_close(alpha, problem.Y / 1.5)


def test_restarts_reach_the_ridge_solution(problem):
    solution = nesterov(DenseKernel(problem.K), problem.Y, 1e-3, 1.0, tol=1e-10)
    assert solution.converged
    expected = dense_ridge(problem.K, problem.Y, 1e-3)
    torch.testing.assert_close(solution.dual_weights, expected, rtol=0, atol=1e-7)


def test_restarts_cost_fewer_iterations_than_none(problem):
    restarted = nesterov(DenseKernel(problem.K), problem.Y, 1e-3, 1.0, tol=1e-8)
    plain = iterate_nesterov(problem.K, problem.Y, 1e-3, 1.0, restarted.iterations)
    residual = (problem.Y - problem.K @ plain - 1e-3 * plain).norm(dim=0)
    assert float((residual / problem.Y.norm(dim=0)).max()) > 1e-8


def test_float32_kernels_are_multiplied_in_float64(problem):
    K = problem.K.float()
    solution = nesterov(DenseKernel(K), problem.Y, 1e-3, 1.0, tol=1e-10)
    assert solution.converged
    expected = dense_ridge(K, problem.Y, 1e-3)
    torch.testing.assert_close(solution.dual_weights, expected, rtol=0, atol=1e-7)


def test_running_out_of_iterations_is_said(problem):
    solution = nesterov(DenseKernel(problem.K), problem.Y, 1e-6, 1.0, tol=1e-12, max_iterations=5)
    assert not solution.converged
    assert solution.iterations == 5
