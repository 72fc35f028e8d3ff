"""Parameters that no layer owns, and layers and weights used more than once."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from jacobian_helpers import Headed, check_features, kept_share, noise, relative_error
from reference import autograd_jacobian
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor

SHARES = [1.0, 0.3]


class Bare(nn.Module):
    """Parameters that no module owns, combined with the input by ``combine``."""

    def __init__(self, combine: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.before = nn.Linear(6, 6)
        self.bare = nn.Parameter(0.5 + torch.rand(shape))
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(self.before(x), self.bare)


def prepend(x: Tensor, token: Tensor) -> Tensor:
    return torch.cat([token.expand(len(x), -1, -1), x], 1)


RULED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[int, ...]]] = {
    "class token": (prepend, (1, 1, 6)),
    "class token by repeat": (lambda x, z: torch.cat([z.repeat(len(x), 1, 1), x], 1), (1, 1, 6)),
    "positions": (lambda x, z: x + z[:, : x.shape[1]], (1, 9, 6)),
    "positions without batch axis": (lambda x, z: z + x, (4, 6)),
    "layer scale": (lambda x, z: z * x, (6,)),
    "gate": (lambda x, z: x * torch.sigmoid(z), (6,)),
    "scalar": (lambda x, z: x * z, ()),
    "subtracted from": (lambda x, z: z - x, (6,)),
    "twice in one call": (lambda x, z: x * z + z, (6,)),
    "product of parameters": (lambda x, z: x * (z * z.sum()), (6,)),
    "matrix from the right": (lambda x, z: x @ z, (6, 3)),
    "matrix from the left": (lambda x, z: F.linear(x, z, z[:, 0]), (3, 6)),
    "low rank": (lambda x, z: x @ (z.T @ z), (2, 6)),
}
OTHERS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[int, ...]]] = {
    "expanded to the input's shape": (lambda x, z: x + z.expand_as(x), (1, 1, 6)),
    "divided by": (lambda x, z: x / z, (6,)),
    "einsum": (lambda x, z: torch.einsum("ntd,de->nte", x, z), (6, 3)),
    "power": (lambda x, z: x.abs() ** z, (6,)),
    "concatenated": (lambda x, z: torch.cat([x, z.unsqueeze(0).expand(len(x), -1, -1)], 1), (2, 6)),
    "written into": (lambda x, z: x.index_copy(1, torch.tensor([0]), x[:, :1] * z), (6,)),
    "stacked": (lambda x, z: x * torch.stack([z, z])[1], (6,)),
    "softmax over sources": (lambda x, z: (x * z.softmax(0)).cumsum(1), (6,)),
}


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", RULED | OTHERS)
@pytest.mark.parametrize("shape", [(3, 4, 6), (4, 4, 6), (1, 4, 6)])
def test_bare_parameters_are_exact(name: str, shape: tuple[int, ...], share: float) -> None:
    combine, parameter_shape = (RULED | OTHERS)[name]
    model = Headed(Bare(combine, parameter_shape)).double()
    sketch = kept_share(model, share)
    x = noise(*shape)
    found = FeatureExtractor(model, sketch)(x).phi
    assert relative_error(found, autograd_jacobian(model, x)[:, sketch.indices]) <= 1e-10


@pytest.mark.parametrize("name", RULED)
def test_common_bare_parameters_need_no_fallback(name: str) -> None:
    check_features(Headed(Bare(*RULED[name])), noise(3, 4, 6))


# --- layers and weights used more than once --------------------------------------------------


class Pyramid(nn.Module):
    """One convolution at two resolutions, and its weight again with another stride."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.coarse = nn.Conv2d(3, 3, 3, stride=2, bias=False)
        self.coarse.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.conv(x))
        y = torch.tanh(self.conv(F.avg_pool2d(x, 2)))
        return torch.cat([y.flatten(1), self.coarse(x).flatten(1)], 1)


class Autoencoder(nn.Module):
    """A decoder with the encoder's weight, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(6, 4)
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.encode(x)), self.encode.weight.t(), self.bias)


class Recycled(nn.Module):
    """Two names for one layer, which runs a different number of times on either branch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.Tanh())
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(self.first(x[..., :1] * x))


class UpAndDown(nn.Module):
    """A convolution and its transpose with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(F.conv1d(x, self.weight, stride=2))
        return F.conv_transpose1d(y, self.weight, stride=2)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Pyramid(), (3, 6, 7)),
        (Autoencoder(), (6,)),
        (Autoencoder(), (5, 6)),
        (Recycled(), (4, 6)),
        (UpAndDown(), (3, 9)),
    ],
)
def test_gradients_of_several_uses_add_up(
    layer: nn.Module, shape: tuple[int, ...], n: int, share: float
) -> None:
    check_features(Headed(layer), noise(n, *shape), share)
