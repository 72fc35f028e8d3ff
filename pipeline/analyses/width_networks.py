"""Networks of any width, to see what width does to a kernel; weights of variance 2/fan-in.

Every one ends in a linear head ``fc``, so that ``backbone_of`` gives its penultimate features. They
are the four of paper 003's pseudo-NTK figures, made small.
"""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.options import seeded
from pipeline.types import InputError


class Headed(nn.Module):
    """A body to features (n, h), and the head ``fc``."""

    def __init__(self, body: nn.Module, features: int, outputs: int) -> None:
        super().__init__()
        self.body = body
        self.fc: nn.Module = nn.Linear(features, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.fc.weight, std=features**-0.5)

    def forward(self, x: Float[Tensor, " n *image"]) -> Float[Tensor, "n k"]:
        """Logits."""
        return self.fc(self.body(x))


class PreActivation(nn.Module):
    """A block of WideResNet: normalization and ReLU before each convolution."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        self.shortcut = nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "n c y x"]) -> Float[Tensor, "n d v u"]:
        """Branch plus shortcut."""
        active = self.first(x)
        return self.branch(active) + self.shortcut(active)


class PostActivation(nn.Module):
    """A block of ResNet: two normalized convolutions, ReLU after the sum."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        same = inputs == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, width, 1, stride, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Float[Tensor, "n c y x"]) -> Float[Tensor, "n d v u"]:
        """relu(branch + shortcut)."""
        return self.relu(self.branch(x) + self.shortcut(x))


def fully_connected(image: torch.Size, width: int, outputs: int) -> nn.Module:
    """Three hidden layers."""
    sizes = [image.numel(), width, width, width]
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return Headed(nn.Sequential(*layers), width, outputs)


def convnet(image: torch.Size, width: int, outputs: int) -> nn.Module:
    """Three convolutions with pooling between them."""
    layers: list[nn.Module] = []
    for depth, inputs in enumerate((image[0], width, width)):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
        layers += [nn.AvgPool2d(2)] if depth < 2 else _pooled()
    return Headed(nn.Sequential(*layers), width, outputs)


def resnet(image: torch.Size, width: int, outputs: int) -> nn.Module:
    """A stem and three stages of one block; channels double with each."""
    stages = [
        PostActivation(width * a, width * b, s) for a, b, s in ((1, 1, 1), (1, 2, 2), (2, 4, 2))
    ]
    stem = [nn.Conv2d(image[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return Headed(nn.Sequential(*stem, *stages, *_pooled()), 4 * width, outputs)


def wide_resnet(image: torch.Size, width: int, outputs: int) -> nn.Module:
    """WideResNet-10 with a stem of 16 channels and stages of width, 2 and 4 times it."""
    pairs = ((16, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2))
    stages = [PreActivation(a, b, s) for a, b, s in pairs]
    stem = nn.Conv2d(image[0], 16, 3, padding=1, bias=False)
    last = [nn.BatchNorm2d(4 * width), nn.ReLU(), *_pooled()]
    return Headed(nn.Sequential(stem, *stages, *last), 4 * width, outputs)


def _pooled() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


Architecture = Literal["fully_connected", "convnet", "resnet", "wide_resnet"]

ARCHITECTURES: dict[str, Callable[[torch.Size, int, int], nn.Module]] = {
    "fully_connected": fully_connected,
    "convnet": convnet,
    "resnet": resnet,
    "wide_resnet": wide_resnet,
}


def make_network(name: str, image: torch.Size, width: int, outputs: int, seed: int) -> nn.Module:
    """The network of that name in evaluation mode, its weights drawn from the seed."""
    if name not in ARCHITECTURES:
        raise InputError(f"unknown network {name!r}; known: {', '.join(ARCHITECTURES)}.")
    with seeded(seed):
        return ARCHITECTURES[name](image, width, outputs).eval()


def smooth(network: nn.Module) -> nn.Module:
    """The network itself with GELU in place of every ReLU: its remainders have no kinks."""
    rectified = [name for name, module in network.named_modules() if isinstance(module, nn.ReLU)]
    for name in rectified:
        network.set_submodule(name, nn.GELU())
    return network


def backbone_of(network: nn.Module) -> nn.Module:
    """A copy without its head: penultimate features (n, h)."""
    body = copy.deepcopy(network)
    body.fc = nn.Identity()
    return body.eval()
