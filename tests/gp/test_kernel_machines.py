"""Gaussian processes on a kernel at hand equal dense algebra."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from pipeline.gp.dirichlet import DirichletLabels
from pipeline.gp.dirichlet_kernel import DirichletKernel
from pipeline.gp.kernel_regression import KernelRegression
from pipeline.types import InputError


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(30, 40, generator=generator, dtype=torch.float64)
    everything = phi @ phi.T
    labels = torch.arange(22) % 3
    K, cross, own = everything[:22, :22], everything[22:, :22], everything[22:, 22:].diagonal()
    return K, labels, cross, own


def test_dirichlet_posterior_equals_dense_algebra_class_by_class(data):
    K, labels, cross, own = data
    s, concentration = 0.07, 0.02
    found = DirichletKernel.of(K, labels, 3).fit(s, concentration)
    mean, spread = found.moments(cross, own)
    transformed = DirichletLabels.of(torch.eye(3, dtype=torch.float64)[labels], concentration)
    centre = transformed.targets.mean()
    evidence = 0.0
    for c in range(3):
        A = s * K + transformed.noise[:, c].diag()
        r = transformed.targets[:, c] - centre
        evidence += MultivariateNormal(torch.zeros(22, dtype=torch.float64), A).log_prob(r)
        torch.testing.assert_close(
            mean[:, c], centre + s * cross @ torch.linalg.solve(A, r), rtol=1e-9, atol=1e-10
        )
        explained = (s * cross * torch.linalg.solve(A, s * cross.T).T).sum(1)
        torch.testing.assert_close(spread[:, c], s * own - explained, rtol=1e-9, atol=1e-9)
    assert found.log_marginal_likelihood == pytest.approx(float(evidence), rel=1e-10)


def test_the_likeliest_outputscale_beats_its_neighbours(data):
    K, labels, *_ = data
    kernel = DirichletKernel.of(K, labels, 3)
    best = kernel.likeliest()
    for factor in (0.5, 2.0):
        other = kernel.fit(factor * best.outputscale)
        assert other.log_marginal_likelihood < best.log_marginal_likelihood


def test_kernel_regression_equals_dense_algebra(data):
    K, _, cross, own = data
    Y = torch.randn(22, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = KernelRegression.of(K, Y)
    s, noise = found.hyperparameters.outputscale, found.hyperparameters.noise[0]
    A = s * K + noise * torch.eye(22, dtype=torch.float64)
    mean, spread = found.moments(cross, own)
    torch.testing.assert_close(mean, s * cross @ torch.linalg.solve(A, Y), rtol=1e-7, atol=1e-8)
    explained = (s * cross * torch.linalg.solve(A, s * cross.T).T).sum(1)
    torch.testing.assert_close(spread, s * own - explained + noise, rtol=1e-7, atol=1e-8)
    expected = MultivariateNormal(torch.zeros(22, dtype=torch.float64), A).log_prob(Y.T).sum()
    assert math.isclose(
        found.hyperparameters.log_marginal_likelihood, float(expected), rel_tol=1e-8
    )


def test_intervals_cover_targets_drawn_from_the_prior_as_often_as_they_say():
    generator = torch.Generator().manual_seed(2)
    n, m, tasks = 60, 40, 50
    phi = torch.randn(n + m, 30, generator=generator, dtype=torch.float64)
    K = phi @ phi.T
    f = phi @ torch.randn(30, tasks, generator=generator, dtype=torch.float64)
    Y = f + 2 * torch.randn(n + m, tasks, generator=generator, dtype=torch.float64)
    found = KernelRegression.of(K[:n, :n], Y[:n])
    mean, spread = found.moments(K[n:, :n], K[n:, n:].diagonal())
    covered = ((Y[n:] - mean).abs() <= 1.959964 * spread.sqrt()[:, None]).double()
    # Tasks are independent, the rows of one are not: the error comes from the tasks' shares.
    share = covered.mean(dim=0)
    error = float(share.std()) / math.sqrt(tasks)
    assert error < 0.01
    assert abs(float(share.mean()) - 0.95) < 3 * error


def test_labels_that_do_not_fit_the_kernel_are_refused(data):
    K, labels, *_ = data
    with pytest.raises(InputError, match="21 labels have a kernel"):
        DirichletKernel.of(K, labels[:21], 3)
    with pytest.raises(InputError, match="outside 0 … 1"):
        DirichletKernel.of(K, labels, 2)
