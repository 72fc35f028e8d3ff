"""Pretrained networks on a study's images: gradient features, penultimate features, new heads."""

import copy

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.analyses.streamed import StreamedFeatures
from pipeline.estimator.memory import refuse_memory
from pipeline.jacobian import FeatureExtractor
from pipeline.models.network import Network
from pipeline.sketch import make_sketch

LARGEST_SKETCH = 100_000
"""Parameters kept unless asked otherwise."""


def features_of(
    network: Network, x: Float[Tensor, " n *image"], size: int | None = None, *, seed: int = 0
) -> StreamedFeatures:
    """Features of every image through the network's head, on a uniform sketch of ``size``.

    None keeps 100,000 parameters, or all of a smaller network.
    """
    parameters = sum(p.numel() for p in network.module.parameters())
    kept = min(parameters, size or LARGEST_SKETCH)
    refuse_memory(len(x), kept)
    sketch = make_sketch("uniform", network.module, kept, seed)
    extract = FeatureExtractor(network.module, sketch)
    phi = np.concatenate([extract(part).phi.float().numpy() for part in x.split(64)])
    return StreamedFeatures(phi, sketch.column_weights.numpy())


def with_new_head(network: Network, head: nn.Module) -> nn.Module:
    """A copy of the module with another head; ``nn.Identity()`` gives penultimate features."""
    module = copy.deepcopy(network.module)
    module.set_submodule(network.head, copy.deepcopy(head))
    return module.eval()


def outputs_of(module: nn.Module, x: Float[Tensor, " n *image"]) -> Float[Tensor, "n k"]:
    """A module's outputs, without a graph."""
    with torch.no_grad():
        return torch.cat([module(part) for part in x.split(256)])
