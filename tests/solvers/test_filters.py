import pytest
import torch
from reference import dense_ridge, integrate_flow, iterate_descent, iterate_nesterov

from pipeline.solvers.eigh import eigh_system
from pipeline.solvers.filters import log_spaced_iterations, ridge_filter, stopping_filters
from pipeline.solvers.operator import DenseKernel

TIMES = [1, 3, 40, 300]


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
@pytest.mark.parametrize("dynamics", ["flow", "descent", "nesterov"])
def test_filters_are_the_iterates(problem, dynamics, ridge):
    system = eigh_system(DenseKernel(problem.K), problem.Y)
    lambda_max = float(system.eigenvalues[-1])
    betas = torch.tensor([ridge, 0.5], dtype=torch.float64)
    filters = stopping_filters(dynamics, system.eigenvalues, betas, lambda_max, TIMES)
    assert filters.shape == (4, 2, 150)
    for place, t in enumerate(TIMES):
        alpha = system.dual_weights(filters[place, 0][:, None])
        if dynamics == "flow":
            expected = integrate_flow(problem.K, problem.Y, ridge, t / (lambda_max + ridge))
        else:
            iterate = iterate_descent if dynamics == "descent" else iterate_nesterov
            expected = iterate(problem.K, problem.Y, ridge, lambda_max, t)
        torch.testing.assert_close(alpha, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dynamics", ["flow", "descent", "nesterov"])
def test_all_dynamics_end_at_the_ridge_solution(problem, dynamics):
    system = eigh_system(DenseKernel(problem.K), problem.Y)
    betas = torch.tensor([0.1], dtype=torch.float64)
    filters = stopping_filters(dynamics, system.eigenvalues, betas, 1.0, [2000])
    alpha = system.dual_weights(filters[0, 0][:, None])
    torch.testing.assert_close(alpha, dense_ridge(problem.K, problem.Y, 0.1))


def test_a_zero_eigenvalue_grows_with_time_and_not_to_nan():
    zero, betas = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for dynamics in ("flow", "descent"):
        found = stopping_filters(dynamics, zero, betas, 2.0, [7])
        assert float(found) == pytest.approx(3.5)
    assert torch.isfinite(stopping_filters("nesterov", zero, betas, 2.0, [7])).all()
    assert float(ridge_filter(zero, 0.0)) == 0.0


def test_log_spaced_iterations_are_distinct_and_end_where_asked():
    times = log_spaced_iterations(24, 1000)
    assert len(times) == 24
    assert times[0] == 1
    assert times[-1] == 1000
    assert times == sorted(set(times))
    assert log_spaced_iterations(24, 5) == [1, 2, 3, 4, 5]
    assert log_spaced_iterations(24, 1) == [1]
    for last in (25, 30, 57):
        assert log_spaced_iterations(24, last)[-1] == last
