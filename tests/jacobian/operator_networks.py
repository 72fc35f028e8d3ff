"""Networks of different making, with inputs, that operators are compared on; float64."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.types import Inputs


class Tied(nn.Module):
    """Embeds tokens, and uses the same weight again on the way out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = torch.tanh(self.body(self.embedding(ids))) * mask.unsqueeze(-1)
        return self.out(hidden.sum(1))[:, :3]


class Attending(nn.Module):
    """Self-attention by the fused function, which has no forward-mode derivative on CPUs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


class InPlaceResidual(nn.Module):
    """Convolutions with frozen BatchNorm, in-place activations and an in-place residual."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.head = nn.Linear(4, 3)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.norm(self.conv(x)))
        y = self.inner(x)
        y += x
        return self.head(y.tanh_().mean((2, 3)))


class Squared(torch.autograd.Function):
    """x², without a rule for batches of tangents: ``vmap`` refuses it."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * tangent


class Unmapped(nn.Module):
    """Uses a function that ``vmap`` cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(Squared.apply(self.body(x)))


def made(name: str, n: int) -> tuple[nn.Module, Inputs, int]:
    """A network in eval mode, n samples for it, and its number of outputs."""
    torch.manual_seed(0)
    if name == "tied":
        ids, mask = torch.randint(0, 7, (n, 5)), torch.ones(n, 5, dtype=torch.float64)
        mask[:, 3:] = 0
        return Tied().double().eval(), {"ids": ids, "mask": mask}, 3
    if name == "attention":
        x = torch.randn(n, 5, 8, dtype=torch.float64)
        return Attending().double().eval(), x, 2
    if name == "residual":
        x = torch.randn(n, 2, 5, 6, dtype=torch.float64)
        return InPlaceResidual().double().eval(), x, 3
    if name == "unmapped":
        return Unmapped().double().eval(), torch.randn(n, 3, dtype=torch.float64), 1
    mlp = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    return mlp.double(), torch.randn(n, 3, dtype=torch.float64), 2


NAMES = ("mlp", "tied", "attention", "residual", "unmapped")
