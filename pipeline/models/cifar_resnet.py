"""ResNets for 32×32 images: depth 6n + 2, three stages of 16, 32 and 64 channels.

He et al. 2016, section 4.2. Shortcuts that change shape are parameter-free in option A (every
second pixel, new channels zero) and 1×1 convolutions with normalization in option B. The key
layouts of the usual checkpoints load: head ``linear`` or ``fc``, shortcut ``downsample`` or
``shortcut``.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import field_validator
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.network import Network, as_network
from pipeline.models.options import ModelOptions, seeded
from pipeline.models.weights import load_checkpoint, load_into, outputs_in

WIDTHS = (16, 32, 64)
DEFAULT_CLASSES = 10
DEEPEST = 1202
"""The paper's deepest; a typing error of a digit more would fill the memory with layers."""
RENAMED = (("linear.", "fc."), (".shortcut.", ".downsample."))
"""Names in circulation, and ours."""


class CifarResNetOptions(ModelOptions):
    """A ResNet for 32×32 images."""

    kind: Literal["cifar_resnet"] = "cifar_resnet"
    """This family."""
    depth: int = 20
    """Number of layers with weights: 6n + 2, such as 20, 32, 44, 56, 110."""
    shortcut: Literal["A", "B"] = "A"
    """Shortcuts that change shape: A without parameters, B a 1×1 convolution."""

    @field_validator("depth")
    @classmethod
    def _depth_is_6n_plus_2(cls, depth: int) -> int:
        if depth < 8 or (depth - 2) % 6 or depth > DEEPEST:
            raise ValueError(
                f"the depth must be 6n + 2 from 8 to {DEEPEST}: 8, 14, 20, 32, 44, 56, 110"
            )
        return depth


class Subsample(nn.Module):
    """Option A: every second pixel, and zeros for the new channels on both sides."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.padding = (0, 0, 0, 0, new_channels // 2, new_channels - new_channels // 2)

    def forward(self, x: Float[Tensor, "n c y x"]) -> Float[Tensor, "n d v u"]:
        """The subsampled, widened input."""
        return functional.pad(x[:, :, ::2, ::2], self.padding)


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(inputs, width, stride, shortcut)

    def forward(self, x: Float[Tensor, "n c y x"]) -> Float[Tensor, "n d v u"]:
        """relu(residual + shortcut)."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.downsample(x))


def _shortcut(inputs: int, width: int, stride: int, option: str) -> nn.Module:
    if stride == 1:
        return nn.Identity()
    if option == "A":
        return Subsample(width - inputs)
    return nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))


class CifarResNet(nn.Module):
    """Stem, three stages, global average, linear head ``fc``."""

    def __init__(self, depth: int, shortcut: str, classes: int = DEFAULT_CLASSES) -> None:
        super().__init__()
        repeats = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], repeats, 1, shortcut)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], repeats, 2, shortcut)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], repeats, 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTHS[2], classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Float[Tensor, "n 3 y x"]) -> Float[Tensor, "n k"]:
        """Logits."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _stage(inputs: int, width: int, repeats: int, stride: int, shortcut: str) -> nn.Sequential:
    rest = [Block(width, width, 1, shortcut) for _ in range(repeats - 1)]
    return nn.Sequential(Block(inputs, width, stride, shortcut), *rest)


def build(options: CifarResNetOptions) -> Network:
    """The network of these options."""
    state = {} if options.weights is None else renamed(load_checkpoint(options.weights))
    classes = outputs_in(state, "fc.weight", DEFAULT_CLASSES)
    with seeded(options.seed):
        module = CifarResNet(options.depth, options.shortcut, classes)
    if options.weights is not None:
        load_into(module, state, options.weights)
    architecture = {
        "kind": options.kind,
        "depth": options.depth,
        "shortcut": options.shortcut,
    }
    return as_network(module, "fc", architecture=architecture)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same entries under this file's names."""
    result = state
    for theirs, ours in RENAMED:
        result = {
            (ours + n.removeprefix(theirs) if n.startswith(theirs) else n.replace(theirs, ours)): t
            for n, t in result.items()
        }
    return result
