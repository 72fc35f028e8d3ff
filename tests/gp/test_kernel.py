import copy

import gpytorch
import pytest
import torch
from dense_gp import log_evidence, posterior
from gpytorch.kernels import ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood, MultitaskGaussianLikelihood

from pipeline.gp import EmpiricalNTK
from pipeline.gp.linearization import Linearization
from pipeline.gp.mean import LinearizationMean
from pipeline.sketch import make_sketch
from pipeline.types import InputError

S, NOISE = 0.3, 0.05


class Single(gpytorch.models.ExactGP):
    def __init__(self, x, y, kernel, batch_shape=()):
        super().__init__(x, y, GaussianLikelihood(batch_shape=torch.Size(batch_shape)))
        self.mean_module = gpytorch.means.ZeroMean()
        self.covar_module = ScaleKernel(kernel, batch_shape=torch.Size(batch_shape))
        self.double()
        self.covar_module.outputscale = torch.tensor(S, dtype=torch.float64)
        self.likelihood.noise = torch.tensor(NOISE, dtype=torch.float64)

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


class Multi(gpytorch.models.ExactGP):
    def __init__(self, x, y, kernel):
        k = y.shape[1]
        super().__init__(x, y, MultitaskGaussianLikelihood(num_tasks=k, has_task_noise=False))
        self.mean_module = gpytorch.means.MultitaskMean(gpytorch.means.ZeroMean(), k)
        self.covar_module = ScaleKernel(kernel)
        self.double()
        self.covar_module.outputscale = torch.tensor(S, dtype=torch.float64)
        self.likelihood.noise = torch.tensor(NOISE, dtype=torch.float64)

    def forward(self, x):
        return gpytorch.distributions.MultitaskMultivariateNormal(
            self.mean_module(x), self.covar_module(x)
        )


def close(found, wanted, tol=1e-9):
    torch.testing.assert_close(found, wanted, rtol=tol, atol=tol * float(wanted.abs().max()))


def log_marginal(gp):
    gp.train()
    mll = gpytorch.mlls.ExactMarginalLogLikelihood(gp.likelihood, gp)
    return mll(gp(*gp.train_inputs), gp.train_targets) * gp.train_targets.shape[-1]


def test_the_kernel_is_the_jacobians_product(single):
    J, J_test = single.jacobian(single.x), single.jacobian(single.x_test)
    kernel = EmpiricalNTK(single.model)
    close(kernel(single.x).to_dense(), J @ J.T)
    close(kernel(single.x_test, single.x).to_dense(), J_test @ J.T)
    close(kernel(single.x, diag=True), J.square().sum(1))


def test_an_exact_gp_equals_dense_algebra(single):
    J, J_test = single.jacobian(single.x), single.jacobian(single.x_test)
    gp = Single(single.x, single.y[:, 0], EmpiricalNTK(single.model))
    close(log_marginal(gp), log_evidence(J, single.y, S, NOISE))
    gp.eval()
    found = gp(single.x_test)
    mean, covariance = posterior(J, J_test, single.y, S, NOISE)
    close(found.mean, mean[:, 0])
    close(found.covariance_matrix, covariance)


def test_more_rows_than_parameters_are_solved_in_parameter_space(single):
    x = torch.randn(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = x[:, :1].sin()
    gp = Single(x, y[:, 0], EmpiricalNTK(single.model))
    J = single.jacobian(x)
    assert J.shape[0] > J.shape[1]
    close(log_marginal(gp), log_evidence(J, y, S, NOISE), 1e-8)
    gp.eval()
    mean, covariance = posterior(J, single.jacobian(single.x_test), y, S, NOISE)
    found = gp(single.x_test)
    close(found.mean, mean[:, 0], 1e-7)
    close(found.covariance_matrix, covariance, 1e-6)


def test_blocks_of_outputs_are_a_multitask_gp(double):
    J, J_test = double.jacobian(double.x), double.jacobian(double.x_test)
    gp = Multi(double.x, double.y, EmpiricalNTK(double.model))
    residuals = double.y.reshape(-1, 1)
    gp.eval()
    found = gp(double.x_test)
    mean, covariance = posterior(J, J_test, residuals, S, NOISE)
    close(found.mean, mean.reshape(-1, 2))
    close(found.covariance_matrix, covariance)


def test_a_scalar_output_with_tasks_is_the_pseudo_kernel_times_identity(double):
    kernel = EmpiricalNTK(double.model, output=0, tasks=2)
    J = double.jacobian(double.x)[::2]
    identity = torch.eye(2, dtype=torch.float64)
    close(kernel(double.x).to_dense(), torch.kron(J @ J.T, identity))
    close(kernel(double.x, diag=True), torch.kron(J @ J.T, identity).diagonal())
    gp = Multi(double.x, double.y, kernel).eval()
    mean, _ = posterior(J, double.jacobian(double.x_test)[::2], double.y, S, NOISE)
    close(gp(double.x_test).mean, mean)


def test_batches_of_inputs_are_batches_of_kernels(single):
    x = torch.stack([single.x, single.x + 0.1])
    y = torch.stack([single.y[:, 0], -single.y[:, 0]])
    gp = Single(x, y, EmpiricalNTK(single.model), batch_shape=(2,)).eval()
    found = gp(single.x_test.expand(2, -1, -1))
    for b in range(2):
        J, J_test = single.jacobian(x[b]), single.jacobian(single.x_test)
        mean, covariance = posterior(J, J_test, y[b, :, None], S, NOISE)
        close(found.mean[b], mean[:, 0])
        close(found.covariance_matrix[b], covariance)


def test_images_are_given_flat_with_their_shape():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 1)
    ).double()
    images = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    kernel = EmpiricalNTK(model, input_shape=(1, 4, 4))
    rows = Linearization(model).rows(images)
    close(kernel(images.reshape(3, 16)).to_dense(), rows @ rows.T)


def test_a_sketch_weighs_its_columns(single):
    sketch = make_sketch("uniform", single.model, size=10, seed=0)
    J = single.jacobian(single.x)[:, sketch.indices]
    kernel = EmpiricalNTK(single.model, sketch=sketch)
    close(kernel(single.x).to_dense(), J @ J.T * (25 / 10))


def test_the_networks_weights_are_no_hyperparameters(single):
    kernel = EmpiricalNTK(single.model)
    assert not list(kernel.parameters())
    assert not kernel.state_dict()
    assert copy.deepcopy(kernel).source is kernel.source


def test_changed_weights_give_other_rows(single):
    model = copy.deepcopy(single.model)
    kernel = EmpiricalNTK(model)
    before = kernel(single.x).to_dense()
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert not torch.allclose(kernel(single.x).to_dense(), before)


def test_a_network_in_training_mode_is_refused():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5), torch.nn.Linear(2, 1))
    with pytest.raises(InputError, match=r"eval\(\)"):
        EmpiricalNTK(model)


@pytest.mark.parametrize("problem", ["single", "double"])
def test_the_implicit_kernel_is_the_explicit_one(problem, request):
    problem = request.getfixturevalue(problem)
    explicit = EmpiricalNTK(problem.model)
    implicit = EmpiricalNTK(problem.model, implicit=True)
    x, x_test = problem.x, problem.x_test
    close(implicit(x).to_dense(), explicit(x).to_dense())
    close(implicit(x_test, x).to_dense(), explicit(x_test, x).to_dense())
    close(implicit(x, diag=True), explicit(x, diag=True))
    close(implicit(x, x + 0.1, diag=True), explicit(x, x + 0.1, diag=True))
    close(implicit(x).evaluate_kernel()[2, 3], explicit(x).evaluate_kernel()[2, 3])
    rows = implicit(x).evaluate_kernel()[2:6, 4:]
    close(rows.to_dense(), explicit(x).to_dense()[2:6, 4:])
    v = torch.randn(len(explicit(x).to_dense()), 3, dtype=torch.float64)
    close(implicit(x) @ v, explicit(x) @ v)
    batch = torch.stack([x, x + 1])
    close(implicit(batch).to_dense(), explicit(batch).to_dense())


def test_gpytorch_conditions_on_products_alone(single):
    gp = Single(single.x, single.y[:, 0], EmpiricalNTK(single.model, implicit=True)).eval()
    with (
        gpytorch.settings.max_cholesky_size(1),
        gpytorch.settings.cg_tolerance(1e-5),
        gpytorch.settings.max_preconditioner_size(0),
    ):
        found = gp(single.x_test)
        mean, covariance = found.mean, found.covariance_matrix
    J, J_test = single.jacobian(single.x), single.jacobian(single.x_test)
    wanted, wanted_covariance = posterior(J, J_test, single.y, S, NOISE)
    # Its conjugate gradients end at a residual of a few 1e-6 whatever is asked for.
    close(mean, wanted[:, 0], 1e-4)
    close(covariance, wanted_covariance, 1e-4)


def test_the_outputscale_is_learned_from_products_alone(single):
    gp = Single(single.x, single.y[:, 0], EmpiricalNTK(single.model, implicit=True))
    explicit = Single(single.x, single.y[:, 0], EmpiricalNTK(single.model))
    torch.manual_seed(0)
    with (
        gpytorch.settings.max_cholesky_size(1),
        gpytorch.settings.cg_tolerance(1e-3),
        gpytorch.settings.max_preconditioner_size(0),
        gpytorch.settings.num_trace_samples(200),
        gpytorch.settings.deterministic_probes(False),
    ):
        log_marginal(gp).backward()
    log_marginal(explicit).backward()
    found, wanted = (model.covar_module.raw_outputscale.grad for model in (gp, explicit))
    close(found, wanted, 0.1)


@pytest.mark.parametrize("mean", ["zero", "linearized", "network"])
def test_the_mean_function_is_the_linearizations(double, mean):
    linearization = Linearization(double.model, mean=mean)
    offsets = linearization(double.x).offsets
    close(LinearizationMean(linearization)(double.x), offsets)
    close(linearization.offsets(double.x), offsets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": 0}, "at least one task"),
        ({"implicit": True, "sketch": object()}, "Drop the sketch"),
        ({"input_shape": (3,)}, "has 3 entries"),
    ],
)
def test_impossible_kernels_are_refused(single, options, message):
    if options.get("sketch"):
        options = {**options, "sketch": make_sketch("uniform", single.model, size=4)}
    with pytest.raises(InputError, match=message):
        EmpiricalNTK(single.model, **options)(single.x).to_dense()


def test_what_has_no_rows_is_no_source(single):
    with pytest.raises(InputError, match="expected a network"):
        EmpiricalNTK("network")
    with pytest.raises(InputError, match="set them there"):
        EmpiricalNTK(Linearization(single.model), output=0)
    with pytest.raises(InputError, match="at least one sample"):
        EmpiricalNTK(single.model)(single.x[:0]).to_dense()


def test_stored_features_have_no_implicit_form():
    class Stored:
        dtype, version = torch.float64, ()

        def rows(self, inputs):
            return inputs

    with pytest.raises(InputError, match="need a network"):
        EmpiricalNTK(Stored(), implicit=True)
