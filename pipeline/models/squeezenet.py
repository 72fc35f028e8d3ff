"""SqueezeNet 1.1, torchvision's ``features.*`` layout, with a linear head on its global average.

Iandola et al. 2016. The original classifier is a convolution followed by ReLU and averaging, so it
is no linear function of the pooled features: it is left out, and the head is always a new one.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.network import Network, as_network
from pipeline.models.options import ModelOptions, seeded
from pipeline.models.weights import load_checkpoint, load_into, outputs_in

WIDTH = 512
DEFAULT_CLASSES = 1000


class SqueezeNetOptions(ModelOptions):
    """SqueezeNet 1.1 for photographs."""

    kind: Literal["squeezenet"] = "squeezenet"
    """This family."""


class Fire(nn.Module):
    """A 1×1 squeeze, then 1×1 and 3×3 expansions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.squeeze_activation = nn.ReLU()
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1x1_activation = nn.ReLU()
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_activation = nn.ReLU()

    def forward(self, x: Float[Tensor, "n c y x"]) -> Float[Tensor, "n d y x"]:
        """Both expansions, concatenated over channels."""
        x = self.squeeze_activation(self.squeeze(x))
        narrow = self.expand1x1_activation(self.expand1x1(x))
        wide = self.expand3x3_activation(self.expand3x3(x))
        return torch.cat([narrow, wide], 1)


class SqueezeNet(nn.Module):
    """Convolutional features, global average, linear head ``fc``."""

    def __init__(self, classes: int = DEFAULT_CLASSES) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            _pool(),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            _pool(),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            _pool(),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTH, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random convolutions that keep the signal's size; no normalization restores it."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: Float[Tensor, "n 3 y x"]) -> Float[Tensor, "n k"]:
        """Logits."""
        return self.fc(torch.flatten(self.avgpool(self.features(images)), 1))


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def build(options: SqueezeNetOptions) -> Network:
    """The network of these options; its head is random, whatever the checkpoint holds."""
    with seeded(options.seed):
        module = SqueezeNet()
    architecture = {"kind": options.kind, "version": "1.1"}
    if options.weights is None:
        return as_network(module, "fc", architecture=architecture)
    state = load_checkpoint(options.weights)
    has_own_head = "fc.weight" in state
    if has_own_head:
        module.fc = nn.Linear(WIDTH, outputs_in(state, "fc.weight", DEFAULT_CLASSES))
    kept = () if has_own_head else ("fc.",)
    load_into(module, state, options.weights, ignore=("classifier.",), keep=kept)
    return as_network(
        module,
        "fc",
        architecture=architecture,
        notes=(
            "The backbone was trained with ImageNet's labels: on targets made of ImageNet classes "
            "it has seen the target labels.",
        ),
        seen_target_labels=True,
        untrained_head=not has_own_head,
    )
