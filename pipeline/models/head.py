"""The head of a network: a new random one (the default), the pretrained one, or a fitted one."""

import copy
from pathlib import Path
from typing import Literal, Self
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.config import Options, Seed
from pipeline.models.network import Network, with_module
from pipeline.types import InputError


class HeadOptions(Options):
    """Which final linear layer the features are taken through."""

    kind: Literal["random", "keep", "fitted"] = "random"
    """A new head with random weights, the one the pretrained weights came with, or a file's."""
    seed: Seed = 0
    """Seed of the random head's weights."""
    outputs: int = Field(default=1, ge=1)
    """Outputs k of the random head; others have their own."""
    path: Path | None = None
    """NumPy archive of a fitted head, weights (k, h) and bias (k,), as a probe's model.npz."""

    @model_validator(mode="after")
    def _file_of_a_fitted_head(self) -> Self:
        if (self.kind == "fitted") != (self.path is not None):
            raise ValueError("give path with kind: fitted, and only then")
        return self


def chosen_head(network: Network, options: HeadOptions) -> Network:
    """``network`` with the head that the options ask for."""
    if options.path is None:
        kind: Literal["random", "keep"] = "keep" if options.kind == "keep" else "random"
        return with_head(network, kind, options.outputs, options.seed)
    try:
        with np.load(options.path, allow_pickle=False) as archive:
            weight, bias = (torch.from_numpy(archive[name]) for name in ("weights", "bias"))
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(
            f"{options.path} holds no head, arrays weights (k, h) and bias (k,): {error}",
            where="model.head.path",
        ) from None
    return with_head_weights(network, weight.float(), bias.float())


def with_head(
    network: Network, kind: Literal["random", "keep"], outputs: int = 1, seed: int = 0
) -> Network:
    """``network`` with the asked head; the given network is never changed.

    ``random`` draws the weights from N(0, 1/h), h the penultimate width, and sets the bias to 0:
    this fixes the share of the head's own features, the penultimate activations, in the kernel.
    Raises :class:`InputError` when there is no pretrained head to keep.
    """
    if kind == "keep":
        if network.untrained_head:
            raise InputError(
                "the weights came without a head of this architecture, so there is none to keep. "
                "Use model.head.kind: random.",
                where="model.head.kind",
            )
        return network
    generator = torch.Generator().manual_seed(seed)
    width = network.width
    weight = torch.randn(outputs, width, generator=generator) / width**0.5
    return with_head_weights(network, weight, torch.zeros(outputs))


def with_head_weights(
    network: Network, weight: Float[Tensor, "k h"], bias: Float[Tensor, " k"]
) -> Network:
    """A copy of ``network`` with these head weights, such as a fitted linear probe's."""
    outputs, width = weight.shape
    if width != network.width or bias.shape != (outputs,):
        raise InputError(
            f"a head for {network.width} penultimate activations needs weights "
            f"(k, {network.width}) and a bias (k,), found {tuple(weight.shape)} and "
            f"{tuple(bias.shape)}."
        )
    head = nn.Linear(width, outputs, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    module = copy.deepcopy(network.module)
    module.set_submodule(network.head, head.eval())
    return with_module(network, module, untrained_head=False)
