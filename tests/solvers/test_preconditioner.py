import torch
from entk_problem import entk_spectrum
from reference import kernel_with_spectrum

from pipeline.solvers.eigensystem import ritz_system
from pipeline.solvers.feature_kernel import FeatureKernel
from pipeline.solvers.krylov import KrylovBasis
from pipeline.solvers.operator import DenseKernel
from pipeline.solvers.preconditioner import deflation_from, leading_pairs, nystrom


def test_all_columns_give_all_eigenpairs():
    K = kernel_with_spectrum(entk_spectrum(60))
    pairs = nystrom(DenseKernel(K), 60)
    torch.testing.assert_close(
        (pairs.vectors * pairs.values) @ pairs.vectors.T, K, atol=1e-8, rtol=0
    )


def test_leading_pairs_are_eigenpairs():
    K = kernel_with_spectrum(entk_spectrum(200))
    pairs = leading_pairs(DenseKernel(K), 20)
    exact = torch.linalg.eigvalsh(K)[-20:]
    torch.testing.assert_close(pairs.values, exact, rtol=0.05, atol=0)
    torch.testing.assert_close(pairs.values[-4:], exact[-4:], rtol=1e-5, atol=0)


def test_they_need_no_entries_of_a_matrix_free_kernel():
    phi = torch.randn(80, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = leading_pairs(FeatureKernel(phi), 20)
    torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(phi @ phi.T)[-20:])


def test_the_preconditioned_spectrum_is_narrow(problem):
    operator, ridge = DenseKernel(problem.K), 1e-3
    pairs = nystrom(operator, 75)
    root = pairs.root(operator, ridge)
    A = problem.K + ridge * torch.eye(150).double()
    before = torch.linalg.cond(A)
    eigenvalues = torch.linalg.eigvalsh(root(root(A).T))
    assert eigenvalues.min() > 0
    assert eigenvalues.max() / eigenvalues.min() < before / 20


def test_a_rank_deficient_kernel_keeps_its_rank(problem):
    spectrum = torch.zeros(50)
    spectrum[:4] = 1.0
    operator = DenseKernel(kernel_with_spectrum(spectrum))
    assert nystrom(operator, 20).values.numel() == 4
    krylov = KrylovBasis(operator, problem.Y[:50])
    for _ in range(3):
        krylov.grow()
    assert deflation_from(ritz_system(krylov), 20).values.numel() <= 4
