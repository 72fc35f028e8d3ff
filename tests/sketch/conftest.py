from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.sketch import make_sketch


def apply_sketch(sketch, model, G):
    """The sketch of whole gradients (n, P), by the definition of its form, float64."""
    G = torch.as_tensor(G)
    if hasattr(sketch, "indices"):
        return G[:, sketch.indices].numpy()
    start, phi = 0, torch.zeros(len(G), sketch.size, dtype=torch.float64)
    for name, parameter in model.named_parameters():
        gradient = G[:, start : start + parameter.numel()]
        start += parameter.numel()
        if hasattr(sketch, "factors"):
            left, right = (factor.double() for factor in sketch.factors(name))
            matrices = gradient.reshape(len(G), left.shape[1], right.shape[1])
            projected = (left @ matrices @ right.T).reshape(len(G), -1)
            first = sketch.offsets[name]
            phi[:, first : first + projected.shape[1]] += projected
        else:
            # In two pieces: the image of a gradient does not depend on how it is fed.
            half = parameter.numel() // 2
            sketch.accumulate(name, 0, gradient[:, :half], phi)
            sketch.accumulate(name, half, gradient[:, half:], phi)
    return phi.numpy()


@dataclass
class TinyNetwork:
    model: nn.Module
    inputs: torch.Tensor
    gradients: np.ndarray
    """Every sample's whole gradient, float64 (n, P), by one backward pass each."""

    @property
    def K(self):
        return self.gradients @ self.gradients.T

    def sketched(self, sketch):
        """Features by the sketch's definition, float64 (n, p)."""
        return apply_sketch(sketch, self.model, self.gradients)

    def kernel(self, kind, seed, **options):
        """The sketched kernel Φ W² Φᵀ of one seed."""
        sketch = make_sketch(kind, self.model, seed=seed, **options)
        phi = self.sketched(sketch) * sketch.column_weights.numpy()
        return phi @ phi.T

    def kernels(self, kind, seeds, **options):
        return np.stack([self.kernel(kind, seed, **options) for seed in range(seeds)])


@pytest.fixture(scope="session")
def tiny():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.Tanh(),
        nn.Conv2d(4, 6, 3, stride=2),
        nn.Flatten(),
        nn.Linear(24, 1),
    ).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    x = torch.randn(3, 3, 5, 5, dtype=torch.float64, generator=generator)
    rows = []
    for i in range(len(x)):
        grads = torch.autograd.grad(model(x[i : i + 1]).sum(), list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in grads]))
    return TinyNetwork(model, x, torch.stack(rows).numpy())
