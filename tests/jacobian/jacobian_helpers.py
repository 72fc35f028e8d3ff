"""Sketch stand-ins and error measures that this room's tests share."""

from dataclasses import dataclass
from typing import Any

import torch
from reference import autograd_jacobian
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor


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


class Headed(nn.Module):
    """A layer, and two outputs from fixed nonlinear sums of whatever shape it gives."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).flatten(1)
        weights = torch.cos(torch.arange(2 * y.shape[1]).to(y)).view(2, -1)
        return torch.tanh(y) @ weights.T


def check_features(
    model: nn.Module, inputs: Tensor, share: float = 1.0, fallback: tuple[str, ...] = ()
) -> None:
    """Features of a random choice of entries, against single backward passes in float64."""
    model = model.double().eval()
    sketch = kept_share(model, share)
    extract = FeatureExtractor(model, sketch)
    found = extract(inputs).phi
    wanted = autograd_jacobian(model, inputs)[:, sketch.indices]
    assert float(wanted.norm()) > 0, "nothing is compared"
    assert relative_error(found, wanted) <= 1e-10
    assert tuple(extract.fallback) == fallback


def noise(*shape: int) -> Tensor:
    """Standard normal inputs, float64."""
    return torch.randn(*shape, dtype=torch.float64)


def with_random_statistics(norm: nn.Module) -> nn.Module:
    """A BatchNorm that looks trained."""
    for tensor in (norm.running_mean, norm.weight, norm.bias):
        if tensor is not None:
            nn.init.normal_(tensor)
    norm.running_var.uniform_(0.5, 2.0)
    return norm


def sketched(sketch: Any, model: nn.Module, gradients: Tensor) -> Tensor:
    """What the sketch makes of whole gradients (n, P), parameter by parameter."""
    if hasattr(sketch, "indices"):
        return gradients[:, sketch.indices]
    out = gradients.new_zeros(len(gradients), sketch.size)
    start = 0
    for name, parameter in model.named_parameters():
        part = gradients[:, start : start + parameter.numel()]
        start += parameter.numel()
        if hasattr(sketch, "accumulate"):
            sketch.accumulate(name, 0, part, out)
        elif name in sketch.offsets:
            left, right = (factor.double() for factor in sketch.factors(name))
            first, size = sketch.offsets[name], len(left) * len(right)
            matrix = part.reshape(len(part), len(parameter) if parameter.ndim else 1, -1)
            out[:, first : first + size] = (left @ matrix @ right.T).flatten(1)
    return out
