import numpy as np
import pytest
import torch
from reference import dense_ridge
from scipy.stats import multivariate_normal

from pipeline.solvers.cholesky import (
    cholesky,
    cholesky_factor,
    inverse_diagonal,
    leave_one_out_residuals,
    log_marginal_likelihood,
    predictive_variance,
)
from pipeline.solvers.operator import DenseKernel
from pipeline.solvers.refusal import KernelError

RIDGE = 1e-2


@pytest.fixture(scope="module")
def factor(problem):
    return cholesky_factor(DenseKernel(problem.K), RIDGE)


def test_it_is_the_dense_solution(problem):
    alpha = cholesky(DenseKernel(problem.K), problem.Y, RIDGE).dual_weights
    torch.testing.assert_close(alpha, dense_ridge(problem.K, problem.Y, RIDGE))


def test_the_kernel_given_is_not_changed(problem):
    before = problem.K.clone()
    cholesky_factor(DenseKernel(problem.K), RIDGE)
    assert torch.equal(before, problem.K)


def test_leave_one_out_residuals_equal_refitting_without_each_row(problem, factor):
    alpha = torch.cholesky_solve(problem.Y, factor)
    residuals = leave_one_out_residuals(factor, alpha)
    for i in (0, 17, 149):
        rest = [j for j in range(150) if j != i]
        refitted = dense_ridge(problem.K[rest][:, rest], problem.Y[rest], RIDGE)
        expected = problem.Y[i] - problem.K[i, rest] @ refitted
        torch.testing.assert_close(residuals[i], expected)


def test_the_inverse_diagonal_is_the_inverses(problem, factor):
    expected = torch.linalg.inv(problem.K + RIDGE * torch.eye(150).double()).diagonal()
    torch.testing.assert_close(inverse_diagonal(factor), expected)


def test_the_log_marginal_likelihood_is_the_normal_density(problem, factor):
    alpha = torch.cholesky_solve(problem.Y, factor)
    found = log_marginal_likelihood(factor, problem.Y, alpha)
    covariance = (problem.K + RIDGE * torch.eye(150).double()).numpy()
    density = multivariate_normal(np.zeros(150), covariance)
    for j in range(problem.Y.shape[1]):
        assert float(found[j]) == pytest.approx(density.logpdf(problem.Y[:, j].numpy()))


def test_the_log_marginal_likelihood_is_gpytorchs(problem, factor):
    gpytorch = pytest.importorskip("gpytorch")
    covariance = problem.K + RIDGE * torch.eye(150).double()
    distribution = gpytorch.distributions.MultivariateNormal(
        torch.zeros(150, dtype=torch.float64), covariance
    )
    alpha = torch.cholesky_solve(problem.Y, factor)
    found = log_marginal_likelihood(factor, problem.Y, alpha)
    assert float(found[0]) == pytest.approx(float(distribution.log_prob(problem.Y[:, 0])))


def test_the_variance_vanishes_at_training_rows_as_the_ridge_does(problem, factor):
    k_xx = torch.full((60,), 2.0, dtype=torch.float64)
    found = predictive_variance(factor, problem.K_val, k_xx)
    inverse = torch.linalg.inv(problem.K + RIDGE * torch.eye(150).double())
    expected = k_xx - ((problem.K_val @ inverse) * problem.K_val).sum(dim=1)
    torch.testing.assert_close(found, expected)
    small = cholesky_factor(DenseKernel(problem.K), 1e-10)
    at_training = predictive_variance(small, problem.K, problem.K.diagonal())
    assert float(at_training.abs().max()) < 1e-8


def test_a_breakdown_names_the_row():
    K = torch.eye(4, dtype=torch.float64)
    K[2, 3] = K[3, 2] = 1.0
    with pytest.raises(KernelError, match="row 3"):
        cholesky_factor(DenseKernel(K), 0.0)
