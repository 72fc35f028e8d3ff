import pytest
import torch
from scipy.optimize import minimize

from pipeline.gp.categorical import curvature_root, curvature_times, one_hot
from pipeline.gp.laplace import FunctionSpaceLaplace, ParameterSpaceLaplace, laplace
from pipeline.types import InputError

S = 0.8
SPACES = [FunctionSpaceLaplace, ParameterSpaceLaplace]


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    n, k, p = 9, 3, 7
    rows = torch.randn(n * k, p, generator=generator, dtype=torch.float64)
    offsets = 0.3 * torch.randn(n, k, generator=generator, dtype=torch.float64)
    Y = one_hot(torch.randint(0, k, (n,), generator=generator), k)
    return rows, offsets, Y, torch.randn(4 * k, p, generator=generator, dtype=torch.float64)


def log_posterior(theta, rows, offsets, Y):
    f = offsets + (rows @ theta).reshape(Y.shape)
    return (f.log_softmax(1) * Y).sum() - theta.square().sum() / (2 * S)


def test_the_root_of_the_curvature_is_one():
    f = torch.randn(5, 4, dtype=torch.float64)
    q, R = f.softmax(1), curvature_root(f)
    W = torch.diag_embed(q) - q[:, :, None] * q[:, None, :]
    torch.testing.assert_close(R @ R.mT, W)
    u = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(curvature_times(f, u), (W @ u[..., None])[..., 0])


@pytest.mark.parametrize("space", SPACES)
def test_the_map_is_where_a_general_optimizer_ends(data, space):
    rows, offsets, Y, _ = data

    def objective(x):
        theta = torch.tensor(x, requires_grad=True)
        value = -log_posterior(theta, rows, offsets, Y)
        value.backward()
        return value.item(), theta.grad.numpy()

    wanted = minimize(objective, torch.zeros(7).double().numpy(), jac=True, tol=1e-14)
    found = space.of(rows, offsets, Y, S)
    assert found.search.converged
    assert found.search.log_posterior == pytest.approx(-wanted.fun, rel=1e-10)
    torch.testing.assert_close(
        found.weights()[:, 0], torch.from_numpy(wanted.x), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("space", SPACES)
def test_the_covariance_is_the_inverse_hessian(data, space):
    rows, offsets, Y, rows_test = data
    found = space.of(rows, offsets, Y, S)
    theta = found.weights()[:, 0]
    hessian = torch.autograd.functional.hessian(
        lambda t: -log_posterior(t, rows, offsets, Y), theta
    )
    wanted = rows_test @ torch.linalg.solve(hessian, rows_test.T)
    torch.testing.assert_close(found.covariance(rows_test), wanted, rtol=1e-8, atol=1e-10)
    evidence = log_posterior(theta, rows, offsets, Y) - 0.5 * torch.logdet(S * hessian)
    assert found.log_marginal_likelihood() == pytest.approx(float(evidence), rel=1e-10)


def test_both_spaces_agree(data):
    rows, offsets, Y, rows_test = data
    function, parameter = (space.of(rows, offsets, Y, S) for space in SPACES)
    torch.testing.assert_close(function.mean(rows_test), parameter.mean(rows_test))
    torch.testing.assert_close(function.covariance(rows_test), parameter.covariance(rows_test))
    assert isinstance(laplace(rows, offsets, Y, S), ParameterSpaceLaplace)
    assert isinstance(laplace(rows[:6], offsets[:2], Y[:2], S), FunctionSpaceLaplace)


def test_too_few_iterations_are_said(data):
    rows, offsets, Y, _ = data
    assert not FunctionSpaceLaplace.of(rows, offsets, Y, S, max_iterations=1).search.converged


def test_labels_that_no_output_has_are_refused():
    with pytest.raises(InputError, match="label 3 of sample 1 is outside 0 … 2"):
        one_hot(torch.tensor([0, 3]), 3)
    with pytest.raises(InputError, match="integers"):
        one_hot(torch.tensor([0.0, 1.0]), 3)
