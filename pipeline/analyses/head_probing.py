"""How fine-tuning moves the features, as the head it starts from allows (Ren et al. 2023).

With features z = f(x), a head g and cross-entropy, one full-batch step moves the features by

    z⁺(x̃) − z(x̃) = (η/N) Σᵢ Θ^f(x̃, xᵢ) (∂g/∂z)(zᵢ)ᵀ (e_yᵢ − qᵢ) + O(η²)

the backbone's eNTK times a direction, the Jacobian of the logits, times an energy, e_y − q. A head
that was probed longer has less energy and a better direction: too little energy and the features
stay, a bad direction and they are spoilt.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.jacobian import JacobianOperator
from pipeline.types import Inputs, run_model


@dataclass(frozen=True)
class StartOfTuning:
    """What a head gives to the first steps of fine-tuning."""

    energy: float
    """Mean of ‖e_y − q‖ over the samples."""
    pull: Float[Tensor, "n h"]
    """(∂g/∂z)ᵀ (e_y − q): where each sample's features are asked to go."""
    direction: float
    """Mean cosine between a sample's pull and the way to its class: class mean minus mean of all.

    About 0 for a random head, whose pulls know nothing of where the classes lie.
    """


def start_of_tuning(
    head: nn.Module, z: Float[Tensor, "n h"], targets: Float[Tensor, "n k"]
) -> StartOfTuning:
    """Energy, pull and direction of a head (linear or not) on features z."""
    features = z.detach().requires_grad_()
    logits = run_model(head, features)
    error = (targets.to(logits) - logits.softmax(dim=1)).detach()
    (pull,) = torch.autograd.grad(logits, features, error)
    energy = float(error.norm(dim=1).mean())
    return StartOfTuning(energy, pull, _direction(pull, z.detach(), targets))


def predicted_feature_change(
    backbone: nn.Module,
    watched: Inputs,
    trained_on: Inputs,
    pull: Float[Tensor, "n h"],
    step_size: float,
) -> Float[Tensor, "m h"]:
    """The first-order change of z on ``watched`` by one full-batch step on ``trained_on``."""
    gradient = JacobianOperator(backbone, trained_on).t_matmul(pull.reshape(-1))
    moved = JacobianOperator(backbone, watched).matmul(gradient) * (step_size / len(pull))
    return moved.reshape(-1, pull.shape[1])


def _direction(
    pull: Float[Tensor, "n h"], z: Float[Tensor, "n h"], targets: Float[Tensor, "n k"]
) -> float:
    members = torch.nn.functional.one_hot(targets.argmax(dim=1), targets.shape[1]).to(z)
    means = members.T @ z / members.sum(dim=0).clamp(min=1)[:, None]
    way = members @ means - z.mean(dim=0)
    return float(torch.cosine_similarity(pull, way, dim=1).mean())
