import pytest
import torch
from reference import explicit_jacobian, iterate_descent
from small_kernels import one_hot
from small_networks import points, tanh_network
from torch import nn

from pipeline.analyses.around import fit_around, matched_ridge, soft_targets, trained_outputs
from pipeline.analyses.full_kernel import kernel_of
from pipeline.types import InputError

N, K_OUT = 6, 3


@pytest.fixture
def problem():
    model, x, y = tanh_network(width=30), points(N), points(4, seed=2)
    with torch.no_grad():
        return model, x, y, one_hot(N, K_OUT), model(x), model(y)


def test_full_kernel_regression_is_the_dense_solve_around_f0(problem):
    model, x, y, Y, f0, f0_y = problem
    J, J_y = explicit_jacobian(model, x, K_OUT), explicit_jacobian(model, y, K_OUT)
    A = J @ J.T + 0.1 * torch.eye(N * K_OUT, dtype=torch.float64)
    expected = f0_y + (J_y @ J.T @ torch.linalg.solve(A, (Y - f0).reshape(-1))).reshape(4, K_OUT)
    machine = fit_around(kernel_of(model, x), Y, f0, ridge=0.1)
    found = machine.predict(kernel_of(model, y, x), f0_y)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_pseudo_kernel_treats_every_output_alike(problem):
    model, x, _, Y, f0, _ = problem
    K = kernel_of(model, x, output=0)
    large = torch.kron(K, torch.eye(K_OUT, dtype=torch.float64))
    alike = fit_around(large, Y, f0, ridge=0.1).predict(large, f0)
    found = fit_around(K, Y, f0, ridge=0.1).predict(K, f0)
    torch.testing.assert_close(found, alike, rtol=1e-9, atol=1e-9)


def test_stopping_early_is_descent_on_the_residuals(problem):
    model, x, _, Y, f0, _ = problem
    K = kernel_of(model, x)
    largest = float(torch.linalg.eigvalsh(K)[-1])
    alpha = iterate_descent(K, (Y - f0).reshape(-1, 1), 0.0, largest, 20)
    found = fit_around(K, Y, f0, steps=20).dual_weights
    torch.testing.assert_close(found, alpha, rtol=1e-7, atol=1e-7 * float(alpha.abs().max()))


def test_a_network_linear_in_its_parameters_trains_as_predicted():
    model, x, y = nn.Linear(5, K_OUT).double().eval(), points(N), points(4, seed=2)
    Y, K = one_hot(N, K_OUT), kernel_of(model, x)
    with torch.no_grad():
        machine = fit_around(K, Y, model(x), steps=15)
        expected = machine.predict(kernel_of(model, y, x), model(y))
    step = 1 / float(torch.linalg.eigvalsh(K)[-1])
    found = trained_outputs(model, x, y, Y, step, [4, 15])
    assert len(found) == 2
    torch.testing.assert_close(found[1], expected, rtol=1e-8, atol=1e-8)


def test_ridges_are_matched_by_the_traces(problem):
    model, x, *_ = problem
    pseudo = kernel_of(model, x, output=0)
    large = 2 * torch.kron(pseudo, torch.eye(K_OUT, dtype=torch.float64))
    assert matched_ridge(0.3, large, pseudo) == pytest.approx(0.6)


@pytest.mark.parametrize(
    "targets", [[[0.5, 0.6]], [[1.5, -0.5]], [[float("nan"), 1.0]], [[1.0], [1.0]]]
)
def test_targets_that_are_no_distributions_are_refused(targets):
    with pytest.raises(InputError, match="distribution"):
        soft_targets(torch.tensor(targets))


def test_soft_targets_pass_as_they_are():
    q = torch.tensor([[0.25, 0.75]])
    assert torch.equal(soft_targets(q), q.double())


def test_kernels_of_another_size_are_refused(problem):
    _, _, _, Y, f0, _ = problem
    with pytest.raises(InputError, match="need 6 or 18"):
        fit_around(torch.eye(7, dtype=torch.float64), Y, f0)
