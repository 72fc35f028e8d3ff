import pytest
import torch
from dense_gp import log_evidence, posterior

from pipeline.gp.implicit import (
    ImplicitOptions,
    NotConvergedError,
    implicit_parameter_space,
)
from pipeline.gp.linearization import Linearization
from pipeline.gp.products import ProductKernel
from pipeline.gp.regression import LinearizedGP
from pipeline.jacobian import FiniteDifferenceFisher
from pipeline.jacobian.likelihoods import Gaussian
from pipeline.sketch import make_sketch
from pipeline.types import InputError

S, NOISE = 0.3, 0.05
TIGHT = ImplicitOptions(tol=1e-12)


def close(found, wanted, tol=1e-8):
    torch.testing.assert_close(found, wanted, rtol=tol, atol=tol * float(wanted.abs().max()))


def fitted(problem, space, options=TIGHT, mean="network", rows=slice(None)):
    return LinearizedGP.of(
        Linearization(problem.model, mean=mean),
        problem.x[rows],
        problem.y[rows],
        outputscale=S,
        noise=NOISE,
        space=space,
        implicit=options,
    )


@pytest.mark.parametrize("space", ["function", "parameter"])
@pytest.mark.parametrize("mean", ["zero", "linearized", "network"])
def test_implicit_posteriors_equal_explicit_ones(double, space, mean):
    explicit = LinearizedGP.of(
        Linearization(double.model, mean=mean), double.x, double.y, outputscale=S, noise=NOISE
    )
    found = fitted(double, space, mean=mean)
    wanted = explicit.predict(double.x_test, covariance=True)
    joint = found.predict(double.x_test, covariance=True)
    close(joint.mean, wanted.mean)
    close(joint.covariance, wanted.covariance)
    close(found.predict(double.x_test).variance, wanted.variance)


def test_predictions_one_input_at_a_time_are_those_of_all(double, monkeypatch):
    gp = fitted(double, "function")
    wanted = gp.predict(double.x_test)
    monkeypatch.setattr("pipeline.gp.regression.PREDICTED_BYTES", 1)
    found = gp.predict(double.x_test)
    close(found.mean, wanted.mean)
    close(found.variance, wanted.variance)


@pytest.mark.parametrize("space", ["function", "parameter"])
def test_more_data_equal_all_data_at_once(double, space):
    grown = fitted(double, space, rows=slice(0, 6)).add(double.x[6:], double.y[6:])
    whole = fitted(double, space)
    close(grown.predict(double.x_test).mean, whole.predict(double.x_test).mean)
    close(grown.predict(double.x_test).variance, whole.predict(double.x_test).variance)


def test_the_evidence_is_estimated_with_its_spread(double):
    gp = fitted(double, "function", mean="zero")
    found, stderr = gp.posterior.log_marginal_likelihood()
    wanted = float(log_evidence(double.jacobian(double.x), double.y.reshape(-1, 1), S, NOISE))
    assert abs(found - wanted) <= 4 * stderr + 1e-8


def test_finite_differences_are_certified_by_exact_products(single):
    linearization = Linearization(single.model)
    J = linearization.operator(single.x)
    fisher = FiniteDifferenceFisher(single.model, single.x, Gaussian())
    inexact = ProductKernel(fisher.matmul, J.shape[1], J.dtype, J.device)
    options = ImplicitOptions(tol=1e-9)
    found = implicit_parameter_space(J, single.y, S, NOISE, options, inexact=inexact)
    Jd, J_test = single.jacobian(single.x), single.jacobian(single.x_test)
    mean, covariance = posterior(Jd, J_test, single.y, S, NOISE)
    assert found.solution.converged
    assert inexact.products > 0
    close(found.mean(J_test), mean, 1e-6)
    close(found.variance(J_test), covariance.diagonal(), 1e-6)


def test_unconverged_solves_report_their_residual_and_refuse_variances(single):
    gp = fitted(single, "function", ImplicitOptions(tol=1e-10, max_iterations=1))
    assert not gp.posterior.solution.converged
    assert gp.posterior.solution.residual > 1e-10
    gp.predict(single.x_test, variance=False)
    with pytest.raises(NotConvergedError, match="residual of"):
        gp.predict(single.x_test)
    gp.predict(single.x_test, allow_unconverged=True)


def test_float32_networks_say_how_far_products_reach(single):
    import copy

    model = copy.deepcopy(single.model).float()
    gp = LinearizedGP.of(
        Linearization(model),
        single.x.float(),
        single.y,
        outputscale=S,
        noise=1e-7,
        implicit=ImplicitOptions(tol=1e-12),
    )
    assert not gp.posterior.solution.converged
    usual = LinearizedGP.of(
        Linearization(model), single.x.float(), single.y,
        outputscale=S, noise=NOISE, implicit=ImplicitOptions(),
    )  # fmt: skip
    assert usual.posterior.solution.converged
    assert usual.posterior.solution.tolerance == 1e-4


def test_noise_and_whole_parameters_are_needed(single):
    with pytest.raises(InputError, match="above 0"):
        LinearizedGP.of(
            Linearization(single.model),
            single.x,
            single.y,
            outputscale=1.0,
            noise=0.0,
            implicit=TIGHT,
        )
    sketch = make_sketch("uniform", single.model, size=5)
    with pytest.raises(InputError, match="Drop the sketch"):
        Linearization(single.model, sketch).operator(single.x)


def test_a_sample_that_is_not_finite_is_named(single):
    x = single.x.clone()
    x[3, 0] = float("nan")
    with pytest.raises(InputError, match="sample 3 of 11"):
        LinearizedGP.of(
            Linearization(single.model), x, single.y,
            outputscale=0.3, noise=0.05, implicit=ImplicitOptions(),
        )  # fmt: skip
