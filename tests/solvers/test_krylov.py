import torch
from reference import kernel_with_spectrum

from pipeline.solvers.krylov import KrylovBasis, orthonormal
from pipeline.solvers.operator import DenseKernel, column_norms


def test_the_basis_stays_orthonormal_and_projects_k(problem):
    operator = DenseKernel(problem.K)
    krylov = KrylovBasis(operator, problem.Y)
    for _ in range(20):
        krylov.grow()
    V = krylov.vectors
    torch.testing.assert_close(V.T @ V, torch.eye(V.shape[1]).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(krylov.projected, V.T @ problem.K @ V, rtol=0, atol=1e-13)


def test_centred_one_hot_targets_have_one_direction_less(problem):
    krylov = KrylovBasis(DenseKernel(problem.K), problem.Y)
    assert krylov.next_block.shape[1] == problem.Y.shape[1] - 1
    restored = krylov.next_block @ krylov.coefficients
    torch.testing.assert_close(restored, problem.Y, rtol=0, atol=1e-13)


def test_it_is_exhausted_when_the_space_is_full(problem):
    krylov = KrylovBasis(DenseKernel(problem.K), problem.Y)
    for _ in range(200):
        krylov.grow()
    assert krylov.exhausted
    assert krylov.products_size == problem.K.shape[0]


def test_it_is_exhausted_by_a_kernel_of_low_rank():
    spectrum = torch.zeros(40)
    spectrum[:5] = torch.tensor([1.0, 0.9, 0.5, 0.2, 0.1])
    K = kernel_with_spectrum(spectrum)
    Y = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    krylov = KrylovBasis(DenseKernel(K), Y)
    for _ in range(10):
        krylov.grow()
    assert krylov.exhausted
    assert krylov.products_size <= 7


def test_residual_norms_measure_distance_from_eigenvectors(problem):
    operator = DenseKernel(problem.K)
    krylov = KrylovBasis(operator, problem.Y)
    for _ in range(5):
        krylov.grow()
    values, rotation = torch.linalg.eigh(krylov.projected)
    vectors = krylov.vectors @ rotation
    expected = (problem.K @ vectors - vectors * values).norm(dim=0)
    torch.testing.assert_close(krylov.residual_norms(rotation), expected, rtol=1e-6, atol=1e-12)


def test_nearly_dependent_columns_are_told_apart():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    extra = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    W = torch.cat([base, base[:, :2] + 1e-9 * extra, base[:, :1]], dim=1)
    operator = DenseKernel(torch.eye(50, dtype=torch.float64))
    Q = orthonormal(operator, W, column_norms(operator, W))
    assert Q.shape[1] == 5
    torch.testing.assert_close(Q.T @ Q, torch.eye(5).double(), rtol=0, atol=1e-12)
    assert (extra - Q @ (Q.T @ extra)).norm() < 1e-5
