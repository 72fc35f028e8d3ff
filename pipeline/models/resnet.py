"""ResNet-18 to ResNet-152 for ImageNet, in torchvision's key layout and numerics.

He et al. 2016, "Deep residual learning for image recognition"; bottlenecks carry the stride in
their 3×3 convolution ("v1.5"), as torchvision's weights expect. Checkpoints of supervised
training and of MoCo (``module.encoder_q.*``, its projection head left out) load as they are.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.network import Network, as_network
from pipeline.models.options import ModelOptions, seeded
from pipeline.models.weights import load_checkpoint, load_into, outputs_in

IMAGENET_CLASSES = 1000

MOCO_ENCODERS = ("encoder_q.", "base_encoder.")
"""The trained encoder in checkpoints of MoCo v1/v2 and of MoCo v3."""

Depth = Literal[18, 34, 50, 101, 152]


class ResNetOptions(ModelOptions):
    """A ResNet for 224×224 photographs."""

    kind: Literal["resnet"] = "resnet"
    """This family."""
    depth: Depth = 50
    """Number of layers with weights."""


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = projection(inputs, width, stride)

    def forward(self, x: Float[Tensor, "n c y x"]) -> Float[Tensor, "n d v u"]:
        """relu(residual + shortcut)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; the output is four times as wide."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = projection(inputs, width * self.expansion, stride)

    def forward(self, x: Float[Tensor, "n c y x"]) -> Float[Tensor, "n d v u"]:
        """relu(residual + shortcut)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The 1×1 shortcut where a block changes shape (option B of the paper), else none."""
    if stride == 1 and inputs == outputs:
        return None
    convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


BLOCKS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """Stem, four stages of blocks, global average, linear head ``fc``."""

    def __init__(self, depth: int, classes: int = IMAGENET_CLASSES) -> None:
        super().__init__()
        block, repeats = BLOCKS[depth]
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(block, 64, 64, repeats[0], stride=1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, repeats[1], stride=2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, repeats[2], stride=2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, repeats[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "n 3 y x"]) -> Float[Tensor, "n k"]:
        """Logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _stage(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, width: int, repeats: int, stride: int
) -> nn.Sequential:
    rest = [block(width * block.expansion, width, 1) for _ in range(repeats - 1)]
    return nn.Sequential(block(inputs, width, stride), *rest)


def build(options: ResNetOptions) -> Network:
    """The network of these options; a checkpoint without classifier leaves a random ``fc``."""
    architecture = {"kind": options.kind, "depth": options.depth}
    if options.weights is None:
        with seeded(options.seed):
            return as_network(ResNet(options.depth), "fc", architecture=architecture)
    state, encoder_only = encoder_state(load_checkpoint(options.weights))
    has_head = "fc.weight" in state and not encoder_only
    classes = outputs_in(state if has_head else {}, "fc.weight", IMAGENET_CLASSES)
    with seeded(options.seed):
        module = ResNet(options.depth, classes)
    dropped = () if has_head else ("fc.",)
    load_into(module, state, options.weights, ignore=dropped, keep=dropped)
    supervised = has_head and classes == IMAGENET_CLASSES
    return as_network(
        module,
        "fc",
        architecture=architecture,
        notes=_notes(supervised, has_head, encoder_only),
        seen_target_labels=supervised,
        untrained_head=not has_head,
    )


def encoder_state(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """The encoder's own entries of a MoCo checkpoint and True, or all entries and False."""
    for prefix in MOCO_ENCODERS:
        inner = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        if inner:
            return inner, True
    return state, False


def _notes(supervised: bool, has_head: bool, encoder_only: bool) -> tuple[str, ...]:
    if supervised:
        return (
            "The backbone was trained with ImageNet's labels: on targets made of ImageNet classes "
            "it has seen the target labels.",
        )
    if encoder_only:
        return ("The backbone is the query encoder of a MoCo checkpoint, trained without labels.",)
    if not has_head:
        return ("The checkpoint has no classifier; whether labels were used is not recorded.",)
    return ()
