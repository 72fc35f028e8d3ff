"""Kernels of random features, for the tests of this folder."""

import torch
from torch import Tensor


def features(n: int, p: int = 40, seed: int = 0) -> Tensor:
    """Float64 rows with decaying columns, as gradients have them."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, p + 1, dtype=torch.float64) ** -0.7
    return torch.randn(n, p, generator=generator, dtype=torch.float64) * scale


def one_hot(n: int, k: int, seed: int = 0) -> Tensor:
    labels = torch.randint(0, k, (n,), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.one_hot(labels, k).double()
