import copy
from dataclasses import replace

import pytest
import torch
from dense_gp import log_evidence, posterior

from pipeline.gp import EmpiricalNTK
from pipeline.gp.adapt import Task, adapt
from pipeline.gp.linearization import Linearization
from pipeline.gp.regression import LinearizedGP, NotConvergedError
from pipeline.types import InputError

S, NOISE = 0.3, 0.05


def close(found, wanted, tol=1e-9):
    torch.testing.assert_close(found, wanted, rtol=tol, atol=tol * float(wanted.abs().max()))


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("space", ["function", "parameter"])
@pytest.mark.parametrize("mean", ["zero", "linearized", "network"])
def test_predictions_equal_dense_algebra_for_every_mean(double, space, mean):
    linearization = Linearization(double.model, mean=mean)
    gp = LinearizedGP.of(linearization, double.x, double.y, outputscale=S, noise=NOISE, space=space)
    J, J_test = double.jacobian(double.x), double.jacobian(double.x_test)
    with torch.no_grad():
        f, f_test = double.model(double.x).reshape(-1, 1), double.model(double.x_test)
    theta = flat(double.model)[:, None]
    mu = {"zero": 0 * f, "network": f, "linearized": f - J @ theta}[mean]
    mu_test = {
        "zero": 0 * f_test,
        "network": f_test,
        "linearized": f_test - (J_test @ theta).reshape(-1, 2),
    }[mean]
    wanted, covariance = posterior(J, J_test, double.y.reshape(-1, 1) - mu, S, NOISE)
    found = gp.predict(double.x_test, covariance=True)
    close(found.mean, wanted.reshape(-1, 2) + mu_test)
    close(found.covariance, covariance)
    close(found.variance, covariance.diagonal().reshape(-1, 2))
    close(gp.predict(double.x_test).variance, found.variance)


def test_targets_share_the_kernel_of_a_scalar_output(double):
    gp = LinearizedGP.of(
        Linearization(double.model, output=1), double.x, double.y, outputscale=S, noise=NOISE
    )
    J, J_test = double.jacobian(double.x)[1::2], double.jacobian(double.x_test)[1::2]
    mean, covariance = posterior(J, J_test, double.y, S, NOISE)
    found = gp.predict(double.x_test)
    close(found.mean, mean)
    close(found.variance, covariance.diagonal()[:, None].expand(-1, 2))


def test_tasks_share_hyperparameters_that_maximize_their_joint_evidence(single):
    tasks = [
        Task(single.x + shift, (single.x + shift).sin().sum(1), name=f"shift {shift}")
        for shift in (0.0, 0.3)
    ]
    adaptation = adapt(Linearization(single.model), tasks)
    s, (noise,) = adaptation.hyperparameters.outputscale, adaptation.hyperparameters.noise
    total = sum(
        float(log_evidence(single.jacobian(task.inputs), task.targets[:, None], s, noise))
        for task in tasks
    )
    assert adaptation.hyperparameters.log_marginal_likelihood == pytest.approx(total, rel=1e-6)
    own = sum(gp.posterior.log_marginal_likelihood() for gp in adaptation.tasks)
    assert own == pytest.approx(total, rel=1e-6)
    assert adaptation["shift 0.3"] is adaptation.tasks[1]


def test_added_context_points_equal_adapting_to_all_of_them(single):
    y = single.x.sin().sum(1)
    linearization = Linearization(single.model, mean="network")
    first = adapt(linearization, [Task(single.x[:4], y[:4])])
    shared = first.hyperparameters
    grown = first.tasks[0].add(single.x[4:], y[4:])
    whole = adapt(linearization, [Task(single.x, y)], hyperparameters=shared).tasks[0]
    close(grown.predict(single.x_test).mean, whole.predict(single.x_test).mean, 1e-6)
    close(grown.predict(single.x_test).variance, whole.predict(single.x_test).variance, 1e-6)


def test_samples_have_the_posteriors_moments(double):
    gp = LinearizedGP.of(
        Linearization(double.model), double.x, double.y, outputscale=S, noise=NOISE
    )
    found = gp.predict(double.x_test[:2], covariance=True)
    draws = found.samples(40_000, torch.Generator().manual_seed(0)).flatten(1)
    close(draws.mean(0), found.mean.flatten(), 0.03)
    close(torch.cov(draws.T), found.covariance, 0.05)


def test_intervals_cover_what_the_model_draws(single):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(400, 2, dtype=torch.float64, generator=generator)
    J = single.jacobian(x)
    theta = torch.randn(J.shape[1], 200, dtype=torch.float64, generator=generator)
    y = S**0.5 * J @ theta
    y += NOISE**0.5 * torch.randn(y.shape, dtype=torch.float64, generator=generator)
    gp = LinearizedGP.of(
        Linearization(single.model, output=0), x[:30], y[:30], outputscale=S, noise=NOISE
    )
    low, high = gp.predict(x[30:]).interval(0.9)
    covered = ((y[30:] > low) & (y[30:] < high)).double().mean()
    assert float(covered) == pytest.approx(0.9, abs=0.01)


def test_variances_of_an_unconverged_fit_are_refused(single):
    from dataclasses import replace

    gp = LinearizedGP.of(
        Linearization(single.model), single.x, single.y, outputscale=S, noise=NOISE
    )
    stopped = replace(gp, converged=False)
    with pytest.raises(NotConvergedError, match="did not converge"):
        stopped.predict(single.x_test)
    stopped.predict(single.x_test, variance=False)
    stopped.predict(single.x_test, allow_unconverged=True)


def test_tasks_of_different_width_are_refused_before_work(double):
    tasks = [Task(double.x, double.y, "a"), Task(double.x, double.y[:, :1], "b")]
    with pytest.raises(InputError, match="a has 2, b has 1"):
        adapt(Linearization(double.model), tasks)


def test_targets_must_fit_the_outputs(double):
    with pytest.raises(InputError, match="2 outputs and the targets 1 columns"):
        adapt(Linearization(double.model), [Task(double.x, double.y[:, 0])])
    later = torch.cat([double.x[:-1], torch.full((1, 2), torch.nan)])
    # Before features are made: those of the last sample would be refused.
    with pytest.raises(InputError, match="2 outputs and the targets 3 columns"):
        adapt(Linearization(double.model), [Task(later, torch.zeros(len(later), 3))])
    y = double.y.clone()
    y[3, 1] = torch.nan
    with pytest.raises(InputError, match="sample 3 is not finite"):
        adapt(Linearization(double.model), [Task(double.x, y)])
    with pytest.raises(InputError, match="mean='zero'"):
        adapt(Linearization(double.model, output=0, mean="network"), [Task(double.x, double.y)])


def test_a_non_differentiable_output_is_refused(single):
    class Rounded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = single.model

        def forward(self, x):
            return self.inner(x).detach().round()

    with pytest.raises(InputError, match="differentiable"):
        adapt(Linearization(Rounded().eval()), [Task(single.x, single.y)])


def test_a_network_that_changed_after_the_fit_is_refused(single):
    model = copy.deepcopy(single.model)
    gp = LinearizedGP.of(Linearization(model), single.x, single.y, outputscale=0.3, noise=0.05)
    with torch.no_grad():
        model[0].weight.mul_(2)
    with pytest.raises(InputError, match="changed after"):
        gp.predict(single.x_test)
    with pytest.raises(InputError, match="changed after"):
        gp.add(single.x_test, torch.zeros(7))


def test_what_a_prediction_cannot_answer_is_refused(double):
    linearization = Linearization(double.model)
    gp = LinearizedGP.of(linearization, double.x, double.y, outputscale=0.3, noise=0.05)
    found = gp.predict(double.x_test, variance=False)
    assert found.interval()[0].isnan().all()
    with pytest.raises(InputError, match="between 0 and 1"):
        found.interval(95)
    with pytest.raises(InputError, match=r"expected targets \(7, 2\)"):
        found.log_density(torch.zeros(2, 7))


def test_tasks_are_told_apart(single):
    linearization = Linearization(single.model)
    tasks = [Task(single.x[i : i + 3], single.y[i : i + 3]) for i in (0, 3, 6)]
    two = adapt(linearization, tasks[:2], noise_per_task=True).hyperparameters
    with pytest.raises(InputError, match="each of 2 tasks, and there are 3"):
        adapt(linearization, tasks, hyperparameters=two)
    with pytest.raises(InputError, match="names of their own"):
        adapt(linearization, [replace(task, name="a") for task in tasks])
    with pytest.raises(InputError, match="sequence of tasks"):
        adapt(linearization, tasks[0])
    with pytest.raises(InputError, match="got ndarray"):
        adapt(linearization, [Task(single.x.numpy(), single.y)])


def test_adaptation_does_not_ask_for_the_callers_mode(single):
    linearization, task = Linearization(single.model), Task(single.x, single.y)
    wanted = adapt(linearization, [task]).hyperparameters
    with torch.inference_mode():
        task = Task(single.x.clone(), single.y.clone())
        assert adapt(linearization, [task]).hyperparameters == wanted
        made_inside = copy.deepcopy(single.model)
    with pytest.raises(InputError, match="inference_mode"):
        Linearization(made_inside)


def test_a_sample_whose_units_are_all_dead_has_the_mean_and_no_variance():
    model = torch.nn.Sequential(
        torch.nn.Linear(1, 3, bias=False), torch.nn.ReLU(), torch.nn.Linear(3, 1, bias=False)
    ).double()
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    gp = LinearizedGP.of(Linearization(model.eval()), x, x, outputscale=1.0, noise=0.1)
    found = gp.predict(torch.zeros(1, 1, dtype=torch.float64))
    assert float(found.mean) == float(found.variance) == 0
    kernel = EmpiricalNTK(model)
    assert kernel(torch.zeros(1, 1, dtype=torch.float64)).to_dense().item() == 0
