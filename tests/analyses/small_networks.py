"""Small float64 networks and inputs, smooth so that derivatives exist everywhere."""

import torch
from torch import Tensor, nn


def tanh_network(k: int = 3, width: int = 8, inputs: int = 5, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, k)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.5 * draw)
    return model.eval()


def points(n: int, inputs: int = 5, seed: int = 1) -> Tensor:
    return torch.randn(
        n, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
