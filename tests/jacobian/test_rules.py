import pytest
import torch
from jacobian_helpers import kept_share, relative_error
from reference import autograd_jacobian
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor, jacobian_features


class Pooled(nn.Module):
    """A layer on (n, T, d) inputs, and a linear head on the mean over positions."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(x)).flatten(1, -2).mean(1))


class Channels(nn.Module):
    """A layer on (n, channels, …) inputs, and a linear head on the mean over space."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(x)).flatten(2).mean(2))


class Scaled(nn.Module):
    """Bare parameters: a class token, position embeddings, a layer scale, an offset."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.positions = nn.Parameter(torch.randn(1, 5, 6))
        self.scale = nn.Parameter(torch.randn(6))
        self.offset = nn.Parameter(torch.randn(()))
        self.temperature = nn.Parameter(torch.randn(1))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = (x + self.positions) * self.scale - self.offset
        x = self.temperature.exp() * torch.tanh(x)
        return self.head((2 - x)[:, 0] - self.scale)


class ManualNorm(nn.Module):
    """RMSNorm with 1 + weight, written out: the weight is used through a derived tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


class Standardized(nn.Conv2d):
    """A convolution with standardized weights, as in BiT."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        std = self.weight.std((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, (self.weight - mean) / std, self.bias, 1, 1)


class Tokens(nn.Module):
    """Token and position embeddings, the output layer tied to the token table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6, padding_idx=0)
        self.positions = nn.Embedding(7, 6)
        self.inner = nn.Linear(6, 6)
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1])
        x = torch.tanh(self.inner(self.table(ids) + self.positions(places)))
        return self.out(x).mean(1)


class Twice(nn.Module):
    """One layer used twice, and its weight once more by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.layer(torch.tanh(self.layer(x))))
        return self.head(x @ self.layer.weight)


class Attention(nn.Module):
    """nn.MultiheadAttention, whose projections are packed and never called as modules."""

    def __init__(self, batch_first: bool, **options: object) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=batch_first, **options)  # type: ignore[arg-type]
        self.batch_first = batch_first
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        y, _ = self.attend(x, torch.tanh(x), torch.sin(x), need_weights=False)
        return self.head(y.mean(1 if self.batch_first else 0))


LAYERS = {
    "linear, leading dimensions": (Pooled(nn.Linear(6, 4), 4), (3, 2, 5, 6)),
    "linear, one position": (nn.Linear(6, 2), (3, 6)),
    "linear, no bias": (Pooled(nn.Linear(6, 4, bias=False), 4), (1, 5, 6)),
    "layer norm": (Pooled(nn.LayerNorm(6), 6), (3, 5, 6)),
    "layer norm over two axes": (Pooled(nn.LayerNorm((5, 6)), 6), (3, 5, 6)),
    "rms norm": (Pooled(nn.RMSNorm(6), 6), (3, 5, 6)),
    "rms norm, written out": (Pooled(ManualNorm(), 6), (3, 5, 6)),
    "group norm": (Channels(nn.GroupNorm(2, 6), 6), (3, 6, 4, 5)),
    "instance norm": (Channels(nn.InstanceNorm1d(6, affine=True), 6), (3, 6, 5)),
    "batch norm": (Channels(nn.BatchNorm2d(6), 6), (3, 6, 4, 5)),
    "batch norm of vectors": (nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2)), (3, 6)),
    "prelu": (Channels(nn.PReLU(6), 6), (3, 6, 4)),
    "prelu, one slope": (Channels(nn.PReLU(), 6), (3, 6, 4)),
    "bare parameters": (Scaled(), (3, 4, 6)),
    "standardized weights": (Channels(Standardized(3, 6, 3), 6), (3, 3, 5, 5)),
    "weight norm": (
        Pooled(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), 4),
        (3, 5, 6),
    ),
    "layer used twice": (Twice(), (3, 5)),
    "attention": (Attention(batch_first=True), (3, 5, 8)),
    "attention, length first": (Attention(batch_first=False), (3, 4, 8)),
    "attention, learnt key": (Attention(batch_first=True, add_bias_kv=True), (3, 4, 8)),
    "encoder layer": (
        nn.Sequential(
            nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), nn.Flatten(), nn.Linear(40, 2)
        ),
        (2, 5, 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_features_equal_single_backward_passes(name: str, share: float) -> None:
    model, shape = LAYERS[name]
    model = model.double().eval()
    x = torch.randn(*shape, dtype=torch.float64)
    sketch = kept_share(model, share)
    wanted = autograd_jacobian(model, x)[:, sketch.indices]
    found = jacobian_features(model, x, sketch)
    assert relative_error(found, wanted) < 1e-12


@pytest.mark.parametrize("name", sorted(set(LAYERS) - {"attention, learnt key"}))
def test_common_layers_need_no_fallback(name: str) -> None:
    model, shape = LAYERS[name]
    extract = FeatureExtractor(model.double().eval())
    extract(torch.randn(*shape, dtype=torch.float64))
    assert not extract.fallback


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_tied_embeddings_add_up(share: float) -> None:
    model = Tokens().double()
    ids = torch.randint(0, 11, (3, 6))
    sketch = kept_share(model, share)
    wanted = autograd_jacobian(model, ids)[:, sketch.indices]
    extract = FeatureExtractor(model, sketch)
    assert relative_error(extract(ids).phi, wanted) < 1e-12
    assert not extract.fallback


def test_a_batch_as_long_as_its_texts_is_not_mistaken_for_positions() -> None:
    model = Tokens().double()
    ids = torch.randint(1, 11, (6, 6))
    assert relative_error(jacobian_features(model, ids), autograd_jacobian(model, ids)) < 1e-12


def test_double_backward_free_of_weights() -> None:
    model = nn.Linear(3, 2).double()
    jacobian_features(model, torch.randn(2, 3, dtype=torch.float64))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
