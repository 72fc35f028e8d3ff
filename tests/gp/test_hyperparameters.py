import gpytorch
import pytest
import torch
from dense_gp import log_evidence

from pipeline.gp.evidence import Evidence
from pipeline.gp.hyperparameters import fit_hyperparameters
from pipeline.solvers.feature_kernel import FeatureKernel
from pipeline.types import InputError


def draw(n, p, seed=0, noise=0.1, s=0.7, columns=1):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -1.5, p, dtype=torch.float64)
    J = torch.randn(n, p, generator=generator, dtype=torch.float64) * scales
    theta = torch.randn(p, columns, generator=generator, dtype=torch.float64) * s**0.5
    y = J @ theta
    return J, y + noise**0.5 * torch.randn(y.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("p", [8, 40])
def test_the_evidence_is_the_dense_one_at_any_hyperparameters(p):
    J, y = draw(20, p, columns=2)
    evidence = Evidence.of_rows(J, y)
    for s, noise in [(0.7, 0.1), (3.0, 1e-4), (1e-3, 2.0)]:
        found, stderr = evidence.log_marginal_likelihood(s, noise)
        assert found == pytest.approx(float(log_evidence(J, y, s, noise)), rel=1e-9)
        assert stderr == 0


def test_lanczos_evidence_agrees_within_its_spread():
    J, y = draw(300, 60)
    exact = Evidence.of_rows(J, y)
    estimate = Evidence.of_operator(FeatureKernel(J), y, seed=3)
    for s, noise in [(0.7, 0.1), (1.0, 0.01)]:
        wanted, _ = exact.log_marginal_likelihood(s, noise)
        found, stderr = estimate.log_marginal_likelihood(s, noise)
        assert 0 < stderr < 0.1 * abs(wanted)
        assert abs(found - wanted) < 4 * stderr


def test_no_neighbour_is_likelier():
    J, y = draw(60, 30)
    evidence = Evidence.of_rows(J, y)
    best = fit_hyperparameters([evidence])
    assert best.converged
    assert not best.at_bound
    (noise,) = best.noise
    top, _ = evidence.log_marginal_likelihood(best.outputscale, noise)
    assert top == pytest.approx(best.log_marginal_likelihood, rel=1e-10)
    for factor in (0.99, 1.01):
        assert evidence.log_marginal_likelihood(best.outputscale * factor, noise)[0] < top
        assert evidence.log_marginal_likelihood(best.outputscale, noise * factor)[0] < top


def test_gpytorch_finds_the_same_maximum():
    J, y = draw(60, 30)
    best = fit_hyperparameters([Evidence.of_rows(J, y)])
    s = torch.tensor(best.outputscale, dtype=torch.float64, requires_grad=True)
    noise = torch.tensor(best.noise[0], dtype=torch.float64, requires_grad=True)
    K = s * J @ J.T + noise * torch.eye(60, dtype=torch.float64)
    prior = gpytorch.distributions.MultivariateNormal(torch.zeros(60).double(), K)
    gradients = torch.autograd.grad(prior.log_prob(y[:, 0]), (s, noise))
    assert abs(float(gradients[0] * s.detach())) < 1e-2
    assert abs(float(gradients[1] * noise.detach())) < 1e-2


def test_many_rows_recover_what_made_them():
    J, y = draw(2_000, 400, noise=0.1, s=0.7)
    best = fit_hyperparameters([Evidence.of_rows(J, y)])
    assert best.outputscale == pytest.approx(0.7, rel=0.3)
    assert best.noise[0] == pytest.approx(0.1, rel=0.1)


def test_tasks_share_the_outputscale_and_may_have_their_own_noise():
    quiet, loud = draw(300, 40, seed=1, noise=0.01), draw(300, 40, seed=2, noise=1.0)
    evidences = [Evidence.of_rows(*task) for task in (quiet, loud)]
    shared = fit_hyperparameters(evidences)
    own = fit_hyperparameters(evidences, noise_per_task=True)
    assert len(shared.noise) == 1
    assert own.noise_of(0) == pytest.approx(0.01, rel=0.3)
    assert own.noise_of(1) == pytest.approx(1.0, rel=0.3)
    assert own.log_marginal_likelihood > shared.log_marginal_likelihood


@torch.no_grad()
def test_a_given_outputscale_is_kept():
    best = fit_hyperparameters([Evidence.of_rows(*draw(60, 30))], outputscale=1.0)
    assert best.outputscale == 1.0
    assert best.converged


def test_too_few_iterations_are_said():
    evidences = [Evidence.of_rows(*draw(50, 30, seed=i, noise=10.0**-i)) for i in range(3)]
    assert not fit_hyperparameters(evidences, noise_per_task=True, max_iterations=1).converged


def test_residuals_of_zero_have_no_outputscale():
    J, y = draw(10, 5)
    with pytest.raises(InputError, match="every residual is zero"):
        fit_hyperparameters([Evidence.of_rows(J, torch.zeros_like(y))])


def test_one_point_leaves_its_noise_open_and_the_answer_is_cautious():
    J, y = draw(1, 5)
    best = fit_hyperparameters([Evidence.of_rows(J, y)])
    assert best.at_bound
    assert best.noise[0] == pytest.approx(best.outputscale * float(J.square().sum()), rel=1e-6)
