"""Products with the Jacobian, against the matrix itself."""

import pytest
import torch
from jacobian_helpers import relative_error
from operator_networks import NAMES, made
from reference import autograd_jacobian, explicit_jacobian
from torch import nn

from pipeline.jacobian import JacobianOperator, jacobian_features
from pipeline.types import InputError


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "m"), [(5, 3), (1, 1)])
def test_products_equal_those_of_the_matrix(name: str, n: int, m: int) -> None:
    model, inputs, k = made(name, n)
    matrix = explicit_jacobian(model, inputs, k)
    # Batches of two leave a last one of one sample; chunks of two a last one of one vector.
    J = JacobianOperator(model, inputs, batch=2, chunk=2)
    assert J.shape == matrix.shape
    V, U = torch.randn(J.shape[1], m).double(), torch.randn(J.shape[0], m).double()
    assert relative_error(J.matmul(V), matrix @ V) <= 1e-12
    assert relative_error(J.t_matmul(U), matrix.T @ U) <= 1e-12
    assert relative_error(J.kernel_matmul(U), matrix @ (matrix.T @ U)) <= 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_the_default_chunk_gives_the_same_products(name: str) -> None:
    model, inputs, k = made(name, 3)
    matrix, J = explicit_jacobian(model, inputs, k), JacobianOperator(model, inputs)
    U = torch.randn(J.shape[0], 3).double()
    assert relative_error(J.kernel_matmul(U), matrix @ (matrix.T @ U)) <= 1e-12


def test_products_of_a_few_columns_at_a_time_are_those_of_all(monkeypatch) -> None:
    model, inputs, k = made("mlp", 3)
    matrix, J = explicit_jacobian(model, inputs, k), JacobianOperator(model, inputs)
    U = torch.randn(J.shape[0], 5).double()
    monkeypatch.setattr("pipeline.jacobian.operators.COLUMN_BYTES", 2 * 4 * 8 * J.shape[1])
    columns = []
    whole = J.matmul
    monkeypatch.setattr(J, "matmul", lambda V: columns.append(V.shape[1]) or whole(V))
    assert relative_error(J.kernel_matmul(U), matrix @ (matrix.T @ U)) <= 1e-12
    assert columns == [2, 2, 1]


def test_a_vector_comes_back_as_a_vector() -> None:
    model, inputs, k = made("mlp", 3)
    J, matrix = JacobianOperator(model, inputs), explicit_jacobian(model, inputs, k)
    v, u = torch.randn(J.shape[1]).double(), torch.randn(J.shape[0]).double()
    assert relative_error(J.matmul(v), matrix @ v) <= 1e-12
    assert relative_error(J.t_matmul(u), matrix.T @ u) <= 1e-12
    assert J.kernel_matmul(u).shape == u.shape


def test_rows_are_those_of_the_features_of_all_outputs() -> None:
    model, inputs, _ = made("residual", 3)
    phi = jacobian_features(model, inputs, output="all")
    J = JacobianOperator(model, inputs)
    v = torch.randn(J.shape[1]).double()
    assert relative_error(J.matmul(v), phi.flatten(0, 1) @ v) <= 1e-12


@pytest.mark.parametrize("output", [1, "sum", "random_direction", lambda f: f[:, 0] * f[:, 1]])
def test_a_scalar_output_has_one_row_a_sample(output: object) -> None:
    model, inputs, _ = made("mlp", 4)
    J = JacobianOperator(model, inputs, output=output, seed=3)
    phi = jacobian_features(model, inputs, output=output, seed=3)
    v = torch.randn(J.shape[1]).double()
    assert J.shape == phi.shape
    assert relative_error(J.matmul(v), phi @ v) <= 1e-12


def test_chosen_parameters_are_the_columns_in_the_models_order() -> None:
    model, inputs, _ = made("mlp", 4)
    J = JacobianOperator(model, inputs, output=0, parameters=["2.bias", "0.weight"])
    whole = autograd_jacobian(model, inputs)
    matrix = torch.cat([whole[:, :18], whole[:, -2:]], 1)
    v = torch.randn(20).double()
    assert J.shape == (4, 20)
    assert relative_error(J.matmul(v), matrix @ v) <= 1e-12


def test_products_do_not_touch_the_network() -> None:
    model, inputs, _ = made("residual", 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    J = JacobianOperator(model, inputs)
    J.kernel_matmul(torch.ones(J.shape[0]).double())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_products_follow_the_networks_weights() -> None:
    model, inputs, k = made("mlp", 3)
    J = JacobianOperator(model, inputs)
    with torch.no_grad():
        model[0].weight.mul_(2)
    u = torch.randn(J.shape[0]).double()
    assert relative_error(J.t_matmul(u), explicit_jacobian(model, inputs, k).T @ u) <= 1e-12


def test_mistakes_are_explained() -> None:
    model, inputs, _ = made("mlp", 3)
    J = JacobianOperator(model, inputs)
    with pytest.raises(InputError, match=r"vector \(38,\) or a block"):
        J.matmul(torch.ones(6))
    with pytest.raises(InputError, match=r"parameters 3\.weight of Sequential"):
        JacobianOperator(model, inputs, parameters=["3.weight"])
    with pytest.raises(InputError, match="at least one sample"):
        JacobianOperator(model, inputs[:0])
    with pytest.raises(InputError, match="active Dropout"):
        JacobianOperator(nn.Sequential(model, nn.Dropout()).train(), inputs)
