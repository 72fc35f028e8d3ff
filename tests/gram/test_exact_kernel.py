"""The kernel of all parameters by panels equals the products of autograd's gradients."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.gram.exact_kernel import exact_kernel
from pipeline.models.cifar_resnet import CifarResNet
from pipeline.store import NonFiniteFeatureError


def images(n: int) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(n))


def network() -> nn.Module:
    torch.manual_seed(0)
    return CifarResNet(8, "B", classes=3).eval()


def by_autograd(model: nn.Module, batch: Tensor, logit: int = 0) -> Tensor:
    """Full gradients in float64, one sample at a time."""
    double = CifarResNet(8, "B", classes=3).eval().double()
    double.load_state_dict(model.state_dict())
    rows = []
    for image in batch.double():
        gradients = torch.autograd.grad(double(image[None])[0, logit], list(double.parameters()))
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows) @ torch.stack(rows).T


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("panel_columns", [1_000, 7_919, 10**9])
def test_it_is_the_product_of_full_gradients_whatever_the_panels(n, panel_columns):
    model, batch = network(), images(n)
    K = exact_kernel(model, batch, panel_columns=panel_columns, batch=2)
    assert error(K, by_autograd(model, batch)) < 1e-5
    assert torch.equal(K, K.T)


def test_another_logit_has_another_kernel():
    model, batch = network(), images(4)
    K = exact_kernel(model, batch, panel_columns=20_000, output=2)
    assert error(K, by_autograd(model, batch, logit=2)) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_sixteen_bits_hold_gradients_of_any_size(dtype, tolerance, size):
    model, batch = network(), images(4)
    with torch.no_grad():
        model.fc.weight.mul_(size)
    K = exact_kernel(model, batch, panel_columns=20_000, dtype=dtype)
    assert error(K, by_autograd(model, batch)) < tolerance


def test_a_gradient_beyond_the_type_is_refused_by_its_row():
    model, batch = network(), images(4)
    batch[:3] *= 1e-3  # the scale is fixed on the first batch
    batch[3] *= 1e6
    with pytest.raises(NonFiniteFeatureError, match="row 3"):
        exact_kernel(model, batch, panel_columns=20_000, batch=3, dtype="float16")
