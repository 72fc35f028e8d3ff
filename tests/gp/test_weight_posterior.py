import pytest
import torch

from pipeline.gp.function_space import FunctionSpace
from pipeline.gp.implicit import ImplicitOptions
from pipeline.gp.linearization import Linearization
from pipeline.gp.regression import LinearizedGP
from pipeline.gp.weight_posterior import exact_weights, fast_weights, variance_error
from pipeline.types import InputError

S, NOISE = 0.3, 0.01


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -3, 150, dtype=torch.float64)
    J = torch.randn(120, 150, generator=generator, dtype=torch.float64) * scales
    J_test = torch.randn(20, 150, generator=generator, dtype=torch.float64) * scales
    return J, J_test, torch.randn(120, 1, generator=generator, dtype=torch.float64)


def test_forgetting_the_data_changes_nothing(data):
    J, J_test, r = data
    exact = FunctionSpace.of(J, r, S, NOISE)
    found = exact_weights(exact)
    torch.testing.assert_close(found.mean(J_test), exact.mean(J_test))
    torch.testing.assert_close(found.covariance(J_test), exact.covariance(J_test))
    torch.testing.assert_close(found.variance(J_test), exact.variance(J_test))


def test_fast_variances_are_never_too_small_and_converge_with_the_rank(data):
    J, J_test, r = data
    exact = FunctionSpace.of(J, r, S, NOISE)
    errors = []
    for rank in (16, 48, 120):
        fast = fast_weights(exact, rank)
        assert bool((fast.variance(J_test) >= exact.variance(J_test) * (1 - 1e-9)).all())
        errors.append(variance_error(fast, exact, J_test).largest)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6


def test_fast_variances_are_as_good_as_gpytorchs(data):
    import gpytorch

    J, J_test, r = data

    class Explicit(gpytorch.models.ExactGP):
        def __init__(self):
            likelihood = gpytorch.likelihoods.GaussianLikelihood()
            super().__init__(J, r[:, 0], likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = gpytorch.kernels.LinearKernel()
            self.double()
            self.covar_module.variance = torch.tensor(S, dtype=torch.float64)
            self.likelihood.noise = torch.tensor(NOISE, dtype=torch.float64)

        def forward(self, x):
            covariance = self.covar_module(x).to_dense()
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), covariance)

    exact = FunctionSpace.of(J, r, S, NOISE)
    torch.manual_seed(0)
    with (
        torch.no_grad(),
        gpytorch.settings.fast_pred_var(),
        gpytorch.settings.max_root_decomposition_size(48),
        gpytorch.settings.max_cholesky_size(1),
        gpytorch.settings.cg_tolerance(1e-8),
    ):
        theirs = Explicit().eval()(J_test).variance
    wanted = exact.variance(J_test)
    ours = variance_error(fast_weights(exact, 48), exact, J_test)
    assert ours.largest <= 1.2 * float(((theirs - wanted).abs() / wanted).max())


def test_implicit_posteriors_have_fast_variances_too(double):
    gp = LinearizedGP.of(
        Linearization(double.model),
        double.x,
        double.y,
        outputscale=S,
        noise=NOISE,
        implicit=ImplicitOptions(tol=1e-12),
    )
    rows = double.jacobian(double.x_test)
    fast = fast_weights(gp.posterior, 22)
    assert variance_error(fast, gp.posterior, rows).largest < 1e-6
    torch.testing.assert_close(fast.mean(rows), gp.posterior.mean(rows))


def test_rows_of_different_noise_are_refused(data):
    J, _, r = data
    noise = torch.linspace(0.01, 0.1, 120, dtype=torch.float64)
    with pytest.raises(InputError, match="one noise variance"):
        fast_weights(FunctionSpace.of(J, r, S, noise), 10)
