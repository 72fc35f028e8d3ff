import pytest
import torch
from jacobian_helpers import kept_share
from torch import Tensor, nn

from pipeline.jacobian.feature_error import feature_error, features_by_precision


def test_errors_are_those_of_the_definition() -> None:
    wanted = torch.diag(torch.tensor([1.0, 2.0, 4.0])).double()
    found = wanted.clone()
    found[0, 0], found[2, 2] = 1.5, 4.4
    error = feature_error(found, wanted)
    assert error.median == pytest.approx(0.1)
    assert error.largest == pytest.approx(0.5)
    # K is diagonal: (1, 4, 16) became (2.25, 4, 19.36).
    assert error.kernel == pytest.approx((1.25**2 + 3.36**2) ** 0.5 / (1 + 16 + 256) ** 0.5)
    assert error.kernel_spectral == pytest.approx(3.36 / 16)


def test_column_weights_enter_the_kernel_alone() -> None:
    wanted = torch.eye(2).double()
    found = torch.diag(torch.tensor([1.1, 1.0])).double()
    error = feature_error(found, wanted, torch.tensor([1.0, 10.0]).double())
    assert error.largest == pytest.approx(0.1)
    assert error.kernel_spectral == pytest.approx(0.21 / 100)


def test_fewer_digits_make_larger_errors_and_the_model_stays(
    convnet: nn.Module, images: Tensor
) -> None:
    found = features_by_precision(convnet, images, kept_share(convnet, 0.5), batch=2)
    errors = {kind: feature_error(phi, found["float64"]) for kind, phi in found.items()}
    assert errors["float64"].largest == 0
    assert 0 < errors["float32"].median < 1e-5 < errors["bfloat16"].median < 0.1
    assert 0 < errors["float32"].kernel < 1e-5 < errors["bfloat16"].kernel < 0.1
    assert {p.dtype for p in convnet.parameters()} == {torch.float64}
