"""Sketch stand-ins and error measures that this room's tests share."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Indices:
    """The least an element sketch has to be."""

    indices: Tensor


def kept_share(model: nn.Module, share: float, seed: int = 0) -> Indices:
    """A random choice of a share of the parameters, in random order."""
    total = sum(parameter.numel() for parameter in model.parameters())
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return Indices(order[: max(1, int(share * total))])


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    return float((found - wanted).detach().norm() / wanted.detach().norm())
