"""A small convolutional network for small images, trained in seconds: the quickstart's backbone.

No normalization, so that training and featurizing run the very same function, and a smooth
activation by default, so that its gradients do not jump with rounding.
"""

from itertools import pairwise
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pipeline.models.network import Network, as_network
from pipeline.models.options import ModelOptions, seeded
from pipeline.models.weights import load_checkpoint, load_into, outputs_in

DEFAULT_CLASSES = 10
POOLED = 2
"""Side of the grid that the last features are averaged to; it keeps coarse position."""

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}

Width = Annotated[int, Field(ge=1)]


class SmallCNNOptions(ModelOptions):
    """A convolutional network of 3×3 layers for images of 8×8 pixels or more."""

    kind: Literal["small_cnn"] = "small_cnn"
    """This family."""
    channels: Annotated[int, Field(ge=1)] = 1
    """Channels of the images."""
    widths: tuple[Width, ...] = Field(default=(16, 32, 64), min_length=1, max_length=5)
    """Channels after each convolution; every one but the first halves the image first."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Nonlinearity after each convolution."""


class SmallCNN(nn.Module):
    """3×3 convolutions with pooling between them, a 2×2 average, linear head ``fc``."""

    def __init__(
        self,
        channels: int = 1,
        widths: tuple[int, ...] = (16, 32, 64),
        activation: str = "gelu",
        classes: int = DEFAULT_CLASSES,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for depth, (inputs, outputs) in enumerate(pairwise((channels, *widths))):
            if depth:
                layers.append(nn.AvgPool2d(2))
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), ACTIVATIONS[activation]()]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(POOLED)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(widths[-1] * POOLED**2, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random convolutions that keep the signal's size."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: Float[Tensor, "n c y x"]) -> Float[Tensor, "n k"]:
        """Logits."""
        return self.fc(self.flatten(self.pool(self.features(images))))


def build(options: SmallCNNOptions) -> Network:
    """The network of these options."""
    state = {} if options.weights is None else load_checkpoint(options.weights)
    classes = outputs_in(state, "fc.weight", DEFAULT_CLASSES)
    with seeded(options.seed):
        module = SmallCNN(options.channels, options.widths, options.activation, classes)
    if options.weights is not None:
        load_into(module, state, options.weights)
    architecture = {
        "kind": options.kind,
        "channels": options.channels,
        "widths": list(options.widths),
        "activation": options.activation,
    }
    return as_network(module, "fc", architecture=architecture)
