import numpy as np
import pytest
import torch
from reference import autograd_jacobian, explicit_jacobian
from small_networks import points, tanh_network
from torch import nn

from pipeline.analyses import full_kernel
from pipeline.analyses.full_kernel import (
    compare_kernels,
    drift,
    hanson_wright_bound,
    kernel_of,
    power_law,
)
from pipeline.types import InputError

K_OUT = 3


@pytest.mark.parametrize("room", [1 << 30, 1])
def test_blocks_are_those_of_autograd(monkeypatch, room):
    monkeypatch.setattr(full_kernel, "ROOM", room)
    model, x, y = tanh_network(), points(7), points(4, seed=2)
    J, J_y = explicit_jacobian(model, x, K_OUT), explicit_jacobian(model, y, K_OUT)
    full = kernel_of(model, x, batch=3)
    torch.testing.assert_close(full, J @ J.T, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(kernel_of(model, x, y, batch=3), J @ J_y.T, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("output", [0, "sum"])
def test_the_pseudo_ntk_is_the_kernel_of_one_scalar(output):
    model, x = tanh_network(), points(6)
    rows = [autograd_jacobian(model, x, j) for j in range(K_OUT)]
    J = rows[0] if output == 0 else sum(rows) / K_OUT**0.5
    torch.testing.assert_close(kernel_of(model, x, output=output), J @ J.T, rtol=1e-10, atol=1e-12)


def test_comparison_is_with_the_kronecker_product_written_out():
    model, x = tanh_network(), points(6)
    full, pseudo = kernel_of(model, x), kernel_of(model, x, output=0)
    large = torch.kron(pseudo, torch.eye(K_OUT, dtype=torch.float64))
    found = compare_kernels(full, pseudo)
    assert found.relative_error == pytest.approx(float((full - large).norm() / full.norm()))
    assert found.norm_difference == pytest.approx(
        abs(float((full.norm() - large.norm()) / full.norm()))
    )
    assert found.lambda_max[1] == pytest.approx(float(torch.linalg.eigvalsh(large)[-1]))
    assert found.lambda_min[0] == pytest.approx(float(torch.linalg.eigvalsh(full)[0]), abs=1e-9)


def fan_in_network(width, seed):
    """Two hidden layers with weights of variance 1/fan-in."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(5, width), (width, width), (width, K_OUT)]
    layers = [nn.Linear(a, b, bias=False).double() for a, b in sizes]
    with torch.no_grad():
        for layer in layers:
            draw = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
            layer.weight.copy_(draw / layer.in_features**0.5)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2]).eval()


def test_with_a_random_head_the_error_falls_as_the_root_of_the_width():
    widths, errors, x = [16, 64, 256], [], points(4)
    for width in widths:
        models = [fan_in_network(width, seed) for seed in range(5)]
        kernels = [(kernel_of(model, x), kernel_of(model, x, output=0)) for model in models]
        errors.append(float(np.mean([compare_kernels(*pair).relative_error for pair in kernels])))
    assert power_law(widths, errors).exponent == pytest.approx(-0.5, abs=0.15)


def test_an_exact_power_law_is_found():
    law = power_law([1, 2, 4, 8], [3 * x**-0.5 for x in (1, 2, 4, 8)])
    assert (law.exponent, law.constant) == (pytest.approx(-0.5), pytest.approx(3))


def test_drift_is_relative_to_the_start():
    K = torch.eye(3, dtype=torch.float64)
    assert drift(K, K) == 0
    assert drift(K, 3 * K) == pytest.approx(2)


def test_the_bound_is_the_talks_formula():
    backbone = torch.diag(torch.tensor([1.0, 2.0])).double()
    expected = (5**0.5 + 4 * 2**0.5) / 3 * 2 * np.log(8 / 0.1)
    assert hanson_wright_bound(backbone, 2, 0.1) == pytest.approx(expected)
    assert hanson_wright_bound(-backbone, 2) == float("inf")


def test_one_output_has_nothing_to_compare():
    K = torch.eye(4, dtype=torch.float64)
    with pytest.raises(InputError, match="k = 1"):
        compare_kernels(K, K)
    with pytest.raises(InputError, match="not k times"):
        compare_kernels(torch.eye(9, dtype=torch.float64), K)
