import pytest
import torch
from entk_problem import make_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import dense_ridge, kernel_with_spectrum

from pipeline.solvers.cg import cg
from pipeline.solvers.operator import DenseKernel
from pipeline.solvers.preconditioner import leading_pairs, nystrom
from pipeline.solvers.refusal import KernelError


@pytest.mark.parametrize("ridge", [1e-1, 1e-3, 1e-5])
def test_it_reaches_the_dense_solution(problem, ridge):
    solution = cg(DenseKernel(problem.K), problem.Y, ridge, tol=1e-11)
    assert solution.converged
    expected = dense_ridge(problem.K, problem.Y, ridge)
    error = (solution.dual_weights - expected).norm() / expected.norm()
    assert error < 1e-8


def test_float32_kernels_converge_to_ten_digits(problem):
    K = problem.K.float()
    solution = cg(DenseKernel(K), problem.Y, 1e-3, tol=1e-10)
    assert solution.converged
    torch.testing.assert_close(
        solution.dual_weights, dense_ridge(K, problem.Y, 1e-3), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("deflate", [nystrom, leading_pairs])
def test_deflation_takes_fewer_iterations_to_the_same_answer(deflate):
    problem = make_problem(n=400)
    operator, ridge = DenseKernel(problem.K), 1e-4
    plain = cg(operator, problem.Y, ridge, tol=1e-9)
    pairs = deflate(operator, 120)
    faster = cg(operator, problem.Y, ridge, tol=1e-9, root=pairs.root(operator, ridge))
    assert faster.converged
    assert 2 * faster.iterations <= plain.iterations
    torch.testing.assert_close(faster.dual_weights, plain.dual_weights, rtol=0, atol=1e-5)


def test_a_warm_start_from_the_solution_takes_no_iteration(problem):
    exact = dense_ridge(problem.K, problem.Y, 1e-2)
    assert cg(DenseKernel(problem.K), problem.Y, 1e-2, tol=1e-9, start=exact).iterations == 0


def test_repeated_and_zero_targets_share_the_space(problem):
    Y = torch.cat([problem.Y, problem.Y[:, :2], torch.zeros_like(problem.Y[:, :1])], dim=1)
    solution = cg(DenseKernel(problem.K), Y, 1e-2, tol=1e-10)
    assert solution.converged
    torch.testing.assert_close(solution.dual_weights, dense_ridge(problem.K, Y, 1e-2))
    assert not solution.dual_weights[:, -1].any()


def test_an_indefinite_matrix_is_refused_with_a_row():
    K = kernel_with_spectrum(torch.tensor([1.0, 0.5, -0.3, 0.2]))
    with pytest.raises(KernelError, match="row"):
        cg(DenseKernel(K), torch.eye(4, dtype=torch.float64), 0.0)


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 30),
    targets=st.integers(1, 4),
    decay=st.floats(0.0, 3.0),
    log_ridge=st.floats(-6, 1),
    seed=st.integers(0, 1000),
)
def test_any_spectrum_is_solved(n, targets, decay, log_ridge, seed):
    K = kernel_with_spectrum(torch.arange(1, n + 1, dtype=torch.float64) ** -decay, seed)
    generator = torch.Generator().manual_seed(seed)
    Y = torch.randn(n, targets, generator=generator, dtype=torch.float64)
    ridge = 10.0**log_ridge
    solution = cg(DenseKernel(K), Y, ridge, tol=1e-10)
    assert solution.converged
    expected = dense_ridge(K, Y, ridge)
    assert float((solution.dual_weights - expected).norm() / expected.norm()) < 1e-4
