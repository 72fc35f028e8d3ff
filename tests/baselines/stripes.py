"""A tiny image task and network that training solves in a second; a child process imports it."""

import numpy as np
import torch
from torch import nn

from pipeline.baselines.training import Images

SIZES = {"train": 97, "val": 60, "id_test": 40, "ood_test": 40}


class Net(nn.Module):
    """Convolution, BatchNorm, dropout, head: everything that makes resuming hard."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.fc(self.dropout(x))


def make_net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().eval()


def stripes() -> dict[str, Images]:
    """Three classes of stripes: horizontal, vertical, none."""
    rng = np.random.default_rng(0)
    found = {}
    for split, n in SIZES.items():
        labels = rng.integers(3, size=n)
        pixels = 0.7 * rng.normal(size=(n, 1, 8, 8))
        pixels[labels == 0, :, ::2] += 1.5
        pixels[labels == 1, :, :, ::2] += 1.5
        tensor = torch.from_numpy(pixels.astype(np.float32))
        found[split] = Images(
            lambda rows, tensor=tensor: tensor[torch.from_numpy(rows)],
            labels,
            [f"{split}/{i}" for i in range(n)],
        )
    return found
