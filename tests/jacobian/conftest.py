"""Small networks that this room's tests share."""

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def convnet() -> nn.Sequential:
    """Convolutions, frozen BatchNorm, in-place ReLU and a head of three outputs; float64."""
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    norm = network[1]
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return network.double().eval()


@pytest.fixture
def images() -> Tensor:
    """Three images of an odd size."""
    return torch.randn(3, 3, 9, 11, dtype=torch.float64)
