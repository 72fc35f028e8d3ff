"""The NTK of fully connected ReLU networks of infinite width, in closed form (Jacot et al. 2018).

Where the width h of all hidden layers grows, the eNTK of one output of
:func:`pipeline.analyses.width_networks.fully_connected` approaches h · Θ∞ whatever the weights.
With κ_l = E[relu(u_l) relu(u′_l)] and κ̇_l = E[1(u_l > 0) 1(u′_l > 0)], both functions of the angle
between the layer's inputs (arc-cosine kernels, Cho and Saul 2009), and L layers,

    Θ∞ = κ_L + Σ_{l < L} κ_l · κ̇_L · Π_{l < j < L} 2 κ̇_j

Weights of a layer have variance 2 / fan-in, the head's 1 / fan-in; first layer and biases vanish
beside the others, whose inputs are h wide.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.types import InputError


def infinite_width_ntk(
    x: Float[Tensor, " n *image"],
    other: Float[Tensor, " m *image"] | None = None,
    *,
    layers: int = 3,
) -> Float[Tensor, "n m"]:
    """Θ∞ of a network with that many hidden layers, float64."""
    if layers < 1:
        raise InputError(f"a network has one hidden layer or more, got {layers}.")
    left = x.flatten(1).double()
    right = left if other is None else other.flatten(1).double()
    scale = left.square().sum(1).sqrt()[:, None] * right.square().sum(1).sqrt()[None]
    scale, cosine = scale / left.shape[1], left @ right.T
    cosine = (cosine / left.shape[1] / scale).clamp(-1, 1)
    # Moments keep their diagonal through weights of variance 2 / fan-in: cosines are all there is.
    earlier = kappa = torch.zeros_like(scale)
    for _ in range(layers):
        active = 1 - cosine.arccos() / math.pi  # 2 κ̇
        earlier = (earlier + kappa) * active
        cosine = (1 - cosine.square()).sqrt() / math.pi + active * cosine
        cosine = cosine.clamp(-1, 1)
        kappa = scale * cosine
    return kappa + earlier / 2
