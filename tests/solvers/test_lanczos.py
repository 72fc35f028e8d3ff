import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import dense_ridge, iterate_nesterov, kernel_with_spectrum

from pipeline.solvers.eigensystem import ritz_system
from pipeline.solvers.filters import stopping_filters
from pipeline.solvers.krylov import KrylovBasis
from pipeline.solvers.lanczos import growing_systems, lanczos
from pipeline.solvers.operator import DenseKernel


def test_polynomials_up_to_the_number_of_steps_are_exact(problem):
    krylov = KrylovBasis(DenseKernel(problem.K), problem.Y)
    for _ in range(12):
        krylov.grow()
    system = ritz_system(krylov)
    beta = torch.zeros(1, dtype=torch.float64)
    filters = stopping_filters("nesterov", system.eigenvalues, beta, 1.0, [12])
    alpha = system.dual_weights(filters[0, 0][:, None])
    expected = iterate_nesterov(problem.K, problem.Y, 0.0, 1.0, 12)
    torch.testing.assert_close(alpha, expected, rtol=1e-11, atol=1e-12)


def test_hundreds_of_iterations_are_replayed_on_a_basis_of_few_steps(problem):
    systems = dict(growing_systems(DenseKernel(problem.K), problem.Y))
    system = systems[32]
    assert len(system.eigenvalues) < problem.K.shape[0]
    beta = torch.tensor([1e-3], dtype=torch.float64)
    filters = stopping_filters("nesterov", system.eigenvalues, beta, 1.0, [400])
    alpha = system.dual_weights(filters[0, 0][:, None])
    expected = iterate_nesterov(problem.K, problem.Y, 1e-3, 1.0, 400)
    assert float((alpha - expected).norm() / expected.norm()) < 1e-7


def test_growing_stops_when_the_space_is_full(problem):
    *_, (_, last) = growing_systems(DenseKernel(problem.K), problem.Y)
    assert last.exact
    exact = torch.linalg.eigvalsh(problem.K)
    torch.testing.assert_close(last.eigenvalues, exact, rtol=0, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 40),
    rank=st.integers(1, 40),
    targets=st.integers(1, 3),
    log_ridge=st.floats(-5, 1),
    seed=st.integers(0, 1000),
)
def test_any_rank_is_solved(n, rank, targets, log_ridge, seed):
    spectrum = torch.arange(1, n + 1, dtype=torch.float64) ** -1.0
    spectrum[rank:] = 0
    K = kernel_with_spectrum(spectrum, seed)
    generator = torch.Generator().manual_seed(seed)
    Y = torch.randn(n, targets, generator=generator, dtype=torch.float64)
    solution = lanczos(DenseKernel(K), Y, 10.0**log_ridge, tol=1e-8)
    assert solution.converged
    expected = dense_ridge(K, Y, 10.0**log_ridge)
    assert float((solution.dual_weights - expected).norm() / expected.norm()) < 1e-2
