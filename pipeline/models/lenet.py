"""LeNet-5 with ReLU and max-pooling, for 32×32 images of one channel in [0, 1].

LeCun et al. 1998, in the key layout ``convnet.c1/c3/c5``, ``fc.f6/f7``.
"""

from collections import OrderedDict
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.network import Network, as_network
from pipeline.models.options import ModelOptions, seeded
from pipeline.models.weights import load_checkpoint, load_into, outputs_in

DEFAULT_CLASSES = 10


class LeNetOptions(ModelOptions):
    """LeNet-5 for 1×32×32 images."""

    kind: Literal["lenet"] = "lenet"
    """This family."""


class LeNet(nn.Module):
    """Three convolutions and two linear layers, the head ``fc.f7``."""

    def __init__(self, classes: int = DEFAULT_CLASSES) -> None:
        super().__init__()
        layers: list[tuple[str, nn.Module]] = [
            ("c1", nn.Conv2d(1, 6, 5)),
            ("relu1", nn.ReLU()),
            ("s2", nn.MaxPool2d(2)),
            ("c3", nn.Conv2d(6, 16, 5)),
            ("relu3", nn.ReLU()),
            ("s4", nn.MaxPool2d(2)),
            ("c5", nn.Conv2d(16, 120, 5)),
            ("relu5", nn.ReLU()),
        ]
        self.convnet = nn.Sequential(OrderedDict(layers))
        head: list[tuple[str, nn.Module]] = [
            ("f6", nn.Linear(120, 84)),
            ("relu6", nn.ReLU()),
            ("f7", nn.Linear(84, classes)),
        ]
        self.fc = nn.Sequential(OrderedDict(head))

    def forward(self, images: Float[Tensor, "n 1 32 32"]) -> Float[Tensor, "n k"]:
        """Logits."""
        return self.fc(torch.flatten(self.convnet(images), 1))


def build(options: LeNetOptions) -> Network:
    """The network of these options."""
    state = {} if options.weights is None else load_checkpoint(options.weights)
    classes = outputs_in(state, "fc.f7.weight", DEFAULT_CLASSES)
    with seeded(options.seed):
        module = LeNet(classes)
    if options.weights is not None:
        load_into(module, state, options.weights)
    return as_network(module, "fc.f7", architecture={"kind": options.kind})
