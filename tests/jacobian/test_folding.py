"""Convolutions followed by BatchNorm, in every setting that folding them must respect."""

from typing import Any

import pytest
import torch
from jacobian_helpers import Headed, check_features, noise, with_random_statistics
from torch import Tensor, nn

SHARES = [1.0, 0.3]


def conv_norm(inputs: int, outputs: int, bias: bool = False, **options: Any) -> nn.Sequential:
    norm = with_random_statistics(nn.BatchNorm2d(outputs, **options))
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias), norm)


class Residual(nn.Module):
    """A residual block that adds and activates in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv_norm(4, 4), conv_norm(4, 4, bias=True)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(self.relu(self.first(x)))
        out += x
        return self.relu(out)


class BothSides(nn.Module):
    """A convolution whose output goes around its BatchNorm, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv_norm(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.tanh(self.norm(y)) + y


class SharedNorm(nn.Module):
    """One BatchNorm after two convolutions, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = conv_norm(4, 4)
        self.second = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.first(x)))
        x = torch.tanh(self.norm(self.second(x)))
        return self.norm(self.first(x))


def extreme_scales() -> nn.Sequential:
    """Scales of zero, tiny and negative, which no folded convolution can be undone from."""
    conv, norm = conv_norm(4, 4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.0, 1e-9, -1.0, 2.0]))
    return nn.Sequential(conv, norm)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    "layer",
    [
        nn.Sequential(conv_norm(4, 4), Residual(), Residual()),
        conv_norm(4, 6, bias=True),
        conv_norm(4, 6, affine=False),
        BothSides(),
        SharedNorm(),
        extreme_scales(),
    ],
    ids=["in-place residual", "bias", "no affine", "around", "shared", "extreme scales"],
)
def test_convolutions_before_batch_norm_are_exact(layer: nn.Module, share: float) -> None:
    check_features(Headed(layer), noise(3, 4, 5, 6), share)
