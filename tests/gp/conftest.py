"""A tiny network with its explicit Jacobian: what the Gaussian processes are compared with."""

from dataclasses import dataclass

import pytest
import torch
from reference import autograd_jacobian
from torch import Tensor, nn

NOISE = 0.05
OUTPUTSCALE = 0.3


@dataclass
class Problem:
    model: nn.Module
    x: Tensor
    y: Tensor
    x_test: Tensor

    def jacobian(self, x: Tensor) -> Tensor:
        """(n*k, P), sample by sample, output by output."""
        outputs = [autograd_jacobian(self.model, x, j) for j in range(self.y.shape[1])]
        return torch.stack(outputs, dim=1).flatten(0, 1)


def make_problem(outputs: int, hidden: int = 6, n: int = 11) -> Problem:
    torch.manual_seed(outputs)
    model = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, outputs)).double()
    x = torch.randn(n, 2, dtype=torch.float64)
    y = torch.randn(n, outputs, dtype=torch.float64)
    return Problem(model.eval(), x, y, torch.randn(7, 2, dtype=torch.float64))


@pytest.fixture(scope="session")
def single() -> Problem:
    return make_problem(1)


@pytest.fixture(scope="session")
def double() -> Problem:
    return make_problem(2)
