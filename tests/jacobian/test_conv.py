from typing import Any

import pytest
import torch
from jacobian_helpers import kept_share, relative_error
from reference import autograd_jacobian
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor, jacobian_features

GEOMETRIES: list[tuple[str, type[nn.Module], dict[str, Any], tuple[int, ...]]] = [
    ("plain", nn.Conv2d, {"kernel_size": 3}, (7, 8)),
    ("pointwise", nn.Conv2d, {"kernel_size": 1}, (5, 6)),
    ("pointwise, stride", nn.Conv2d, {"kernel_size": 1, "stride": 2}, (5, 6)),
    ("padding", nn.Conv2d, {"kernel_size": 3, "padding": 1}, (5, 6)),
    ("more padding than needed", nn.Conv2d, {"kernel_size": 2, "padding": 3}, (4, 5)),
    ("stride", nn.Conv2d, {"kernel_size": 3, "stride": 2, "padding": 1}, (8, 7)),
    ("stride beyond kernel", nn.Conv2d, {"kernel_size": 2, "stride": 3}, (9, 10)),
    ("dilation", nn.Conv2d, {"kernel_size": 3, "dilation": 2, "padding": 2}, (7, 6)),
    ("all at once", nn.Conv2d,
     {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 2), "dilation": (2, 1), "groups": 2},
     (9, 10)),
    ("same", nn.Conv2d, {"kernel_size": (4, 3), "padding": "same"}, (6, 5)),
    ("circular", nn.Conv2d, {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}, (6, 5)),
    ("reflect", nn.Conv1d, {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"}, (9,)),
    ("depthwise", nn.Conv2d, {"kernel_size": 5, "padding": 2, "groups": 4}, (6, 7)),
    ("one axis", nn.Conv1d, {"kernel_size": 4, "stride": 3, "dilation": 2}, (15,)),
    ("three axes", nn.Conv3d, {"kernel_size": (2, 3, 1), "stride": (1, 2, 1)}, (4, 7, 3)),
    ("transposed", nn.ConvTranspose2d, {"kernel_size": 3, "stride": 2, "padding": 1}, (4, 5)),
    ("transposed, groups", nn.ConvTranspose1d,
     {"kernel_size": 4, "stride": 3, "output_padding": 1, "groups": 2}, (6,)),
]  # fmt: skip


class Net(nn.Module):
    """One convolution, and a head on its mean over space."""

    def __init__(self, layer: type[nn.Module], inputs: int, outputs: int, **options: Any) -> None:
        super().__init__()
        self.layer = layer(inputs, outputs, **options)
        self.head = nn.Linear(outputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(x)).flatten(2).square().mean(2))


@pytest.mark.parametrize(("name", "layer", "options", "size"), GEOMETRIES)
@pytest.mark.parametrize("share", [1.0, 0.6, 0.1])
def test_every_geometry_equals_autograd(
    name: str, layer: type[nn.Module], options: dict[str, Any], size: tuple[int, ...], share: float
) -> None:
    model = Net(layer, 4, 8, **options).double()
    x = torch.randn(3, 4, *size, dtype=torch.float64)
    sketch = kept_share(model, share)
    extract = FeatureExtractor(model, sketch)
    wanted = autograd_jacobian(model, x)[:, sketch.indices]
    assert relative_error(extract(x).phi, wanted) < 1e-12
    assert not extract.fallback


@pytest.mark.parametrize("share", [1.0, 0.4, 0.05])
@pytest.mark.parametrize("options", [{"stride": 2}, {"groups": 2}, {"dilation": 2}])
def test_whole_gradients_as_groups_equal_autograd(share: float, options: dict[str, int]) -> None:
    # Float32 and channels in sixteens: the shapes that go through oneDNN's grouped convolution.
    model = Net(nn.Conv2d, 32, 32, kernel_size=3, padding=1, **options)
    x = torch.randn(19, 32, 9, 8)
    sketch = kept_share(model, share)
    wanted = autograd_jacobian(model.double(), x.double())[:, sketch.indices]
    found = jacobian_features(model.float(), x, sketch)
    assert relative_error(found.double(), wanted) < 1e-5


@pytest.mark.parametrize("share", [1.0, 0.05])
def test_channels_last_inputs_give_the_same(share: float) -> None:
    model = Net(nn.Conv2d, 4, 8, kernel_size=3, stride=2).double()
    x = torch.randn(3, 4, 9, 8, dtype=torch.float64)
    sketch = kept_share(model, share)
    plain = jacobian_features(model, x, sketch)
    model = model.to(memory_format=torch.channels_last)
    found = jacobian_features(model, x.contiguous(memory_format=torch.channels_last), sketch)
    assert relative_error(found, plain) < 1e-12


class Frames(nn.Module):
    """Several frames a sample, folded into the batch of the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4).eval(), nn.Tanh())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x.flatten(0, 1)).mean((2, 3))
        return self.head(y.unflatten(0, x.shape[:2]).square().mean(1))


def test_frames_folded_into_the_batch_add_up() -> None:
    model = Frames().double().eval()
    x = torch.randn(3, 5, 2, 6, 6, dtype=torch.float64)
    extract = FeatureExtractor(model)
    assert relative_error(extract(x).phi, autograd_jacobian(model, x)) < 1e-12
    assert not extract.fallback
