"""A small problem with the spectrum of an eNTK kernel: one large eigenvalue, a slow power decay."""

from dataclasses import dataclass

import numpy as np
import torch
from reference import kernel_with_spectrum
from torch import Tensor

from pipeline.solvers.select import Score, accuracy
from pipeline.solvers.targets import CenteredTargets, class_targets


@dataclass(frozen=True)
class Problem:
    K: Tensor
    """float64 (n, n)"""
    K_val: Tensor
    targets: CenteredTargets
    labels: np.ndarray
    labels_val: np.ndarray

    @property
    def Y(self) -> Tensor:
        return self.targets.matrix

    @property
    def score(self) -> Score:
        return accuracy(self.labels_val, self.targets.mean)


def entk_spectrum(n: int) -> Tensor:
    spectrum = 0.12 * torch.arange(1, n + 1, dtype=torch.float64) ** -1.2
    spectrum[0] = 1.0
    return spectrum


def make_problem(n: int = 150, m: int = 60, classes: int = 4, seed: int = 0) -> Problem:
    whole = kernel_with_spectrum(entk_spectrum(n + m), seed)
    scores = whole @ torch.randn(
        n + m, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    noise = torch.randn(
        n + m, classes, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64
    )
    labels = (scores + 0.01 * noise).argmax(dim=1).numpy()
    return Problem(
        K=whole[:n, :n].contiguous(),
        K_val=whole[n:, :n].contiguous(),
        targets=class_targets(labels[:n], classes),
        labels=labels[:n],
        labels_val=labels[n:],
    )
