"""Layers in the settings where a rule could go wrong; the plain ones are in test_rules."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jacobian_helpers import Headed, check_features, noise, with_random_statistics
from torch import Tensor, nn

from pipeline.jacobian import JacobianOperator, jacobian_features

SHARES = [1.0, 0.3]


# --- linear maps -----------------------------------------------------------------------------


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("widths", [(5, 7), (1, 6), (6, 1)])
@pytest.mark.parametrize("leading", [(3,), (2, 5), (1, 3, 2), (3, 1, 2, 2)])
def test_linear_layers_take_any_leading_axes(
    leading: tuple[int, ...], widths: tuple[int, int], bias: bool, share: float
) -> None:
    check_features(Headed(nn.Linear(*widths, bias=bias)), noise(*leading, widths[0]), share)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("shape", [(3, 6), (3, 5, 6), (1, 2, 3, 6)])
def test_gpt2s_transposed_linear_layers_are_exact(shape: tuple[int, ...], share: float) -> None:
    library = pytest.importorskip("transformers.pytorch_utils")
    layer = library.Conv1D(4, 6)
    nn.init.normal_(layer.bias)
    check_features(Headed(layer), noise(*shape), share)


# --- convolutions ----------------------------------------------------------------------------

LAYERS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 2},
        {"padding": "same", "dilation": 2},
        {"padding": "valid", "stride": 2},
        {"padding": 1, "stride": 2, "groups": 3, "bias": False},
    ],
)
def test_convolutions_of_every_padding_mode_are_exact(
    axes: int, mode: str, options: dict[str, Any]
) -> None:
    layer = LAYERS[axes](3, 6, 3, padding_mode=mode, **options)
    check_features(Headed(layer), noise(2, 3, *(5, 6, 7)[-axes:]), 0.5)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_random_geometries_are_exact(axes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(100 * axes + seed)

    def draw(low: int, high: int) -> tuple[int, ...]:
        return tuple(torch.randint(low, high, (axes,), generator=generator).tolist())

    groups = (1, 2, 4)[seed % 3]
    kernel, dilation = draw(1, 4), draw(1, 4)
    extents = draw(0, 5)
    size = [(k - 1) * d + 1 + e for k, d, e in zip(kernel, dilation, extents, strict=True)]
    layer = LAYERS[axes](
        4,
        8,
        kernel,
        draw(1, 4),
        draw(0, 3),
        dilation,
        groups,
    )
    for share in SHARES:
        check_features(Headed(layer), noise(seed % 3 + 1, 4, *size), share)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(4, 4, 3, groups=4, padding=1, bias=False), (4, 5)),
        (nn.Conv2d(4, 12, 3, groups=4), (4, 5)),
        (nn.Conv1d(4, 8, 1, groups=4), (3,)),
        (nn.Conv3d(4, 4, (1, 2, 3), groups=4, stride=(1, 2, 1)), (2, 5, 4)),
        (nn.Conv2d(1, 5, (3, 1), padding="same"), (4, 3)),
        (nn.Conv2d(3, 1, 1, bias=False), (1, 1)),
        (nn.Conv2d(3, 5, (4, 5)), (4, 5)),
    ],
    ids=["depthwise", "multiplier", "1x1 groups", "3d", "one in", "one pixel", "whole image"],
)
def test_narrow_and_depthwise_convolutions_are_exact(
    layer: nn.Module, size: tuple[int, ...], share: float
) -> None:
    check_features(Headed(layer), noise(3, layer.in_channels, *size), share)


# --- embeddings ------------------------------------------------------------------------------


class Looked(nn.Module):
    """An embedding table, and two outputs from what is looked up."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 5, **options)
        self.head = nn.Linear(5, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = torch.tanh(self.table(ids))
        return self.head(x.reshape(len(x), -1, 5).square().sum(1))


@pytest.mark.parametrize("share", [1.0, 0.6, 0.3])
@pytest.mark.parametrize("padding_idx", [None, 0, -1])
@pytest.mark.parametrize(
    "ids",
    [[[3, 3, 3, 3]], [[0, 8, 0], [8, 8, 1]], [[[1, 2], [2, 8]], [[0, 0], [0, 5]]], [4, 8, 0]],
    ids=["one token", "repeated", "tables of tokens", "single"],
)
def test_repeated_and_padding_tokens_are_exact(
    ids: list[Any], padding_idx: int | None, share: float
) -> None:
    check_features(Looked(padding_idx=padding_idx), torch.tensor(ids), share)


def test_tables_with_sparse_gradients_have_the_same_features() -> None:
    dense, ids = Looked().double(), torch.tensor([[0, 8, 0], [8, 8, 1]])
    sparse = Looked(sparse=True).double()
    sparse.load_state_dict(dense.state_dict())
    phi, u = jacobian_features(dense, ids), torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(jacobian_features(sparse, ids), phi)
    torch.testing.assert_close(JacobianOperator(sparse, ids, output=0).t_matmul(u), phi.sum(0))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_tables_that_change_in_the_forward_pass_go_through_the_fallback() -> None:
    model = Looked(max_norm=1.0)
    with torch.no_grad():
        model(torch.arange(9))
    check_features(model, torch.tensor([[1, 2], [8, 8]]), fallback=("table.weight",))


# --- normalization ---------------------------------------------------------------------------


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(6), (3, 6)),
        (nn.BatchNorm1d(6), (3, 6, 4)),
        (nn.BatchNorm2d(6, eps=0.1), (1, 6, 3, 4)),
        (nn.BatchNorm3d(6), (2, 6, 2, 3, 1)),
    ],
)
def test_batch_norm_uses_its_running_statistics(
    layer: nn.Module, shape: tuple[int, ...], share: float
) -> None:
    check_features(Headed(with_random_statistics(layer)), noise(*shape), share)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm2d(6, affine=False), (3, 6, 4, 5)),
        (nn.GroupNorm(3, 6, affine=False), (3, 6, 4, 5)),
        (nn.LayerNorm(5, elementwise_affine=False), (3, 6, 5)),
        (nn.RMSNorm(5, elementwise_affine=False), (3, 6, 5)),
        (nn.LayerNorm(5, bias=False), (3, 6, 5)),
        (nn.LayerNorm(5, eps=0.3), (3, 5)),
        (nn.LayerNorm((4, 5), bias=False), (2, 6, 4, 5)),
        (nn.RMSNorm((4, 5), eps=0.3), (2, 3, 4, 5)),
        (nn.GroupNorm(6, 6, eps=0.3), (3, 6, 4)),
        (nn.GroupNorm(1, 6), (3, 6, 2, 2, 2)),
        (nn.GroupNorm(2, 6), (3, 6)),
    ],
)
def test_norms_are_exact_with_and_without_their_own_parameters(
    layer: nn.Module, shape: tuple[int, ...], share: float
) -> None:
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    before = nn.Linear(shape[-1], shape[-1])
    check_features(Headed(nn.Sequential(before, layer)), noise(*shape), share)


# --- attention -------------------------------------------------------------------------------


class Attending(nn.Module):
    """Attention from three tokens to the whole sequence, with the masks of ``options``."""

    def __init__(
        self, masks: dict[str, Callable[[Tensor], Tensor]] | None = None, **options: Any
    ) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.masks = masks or {}
        if self.attend.in_proj_bias is not None:
            nn.init.normal_(self.attend.in_proj_bias)
            nn.init.normal_(self.attend.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        keys = x[..., : self.attend.kdim]
        masks = {name: make(x) for name, make in self.masks.items()}
        return self.attend(x[:, :3], keys, x[..., : self.attend.vdim], **masks)[0]


class SelfAttending(Attending):
    """The same tensor as query, key and value: one packed projection."""

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x, need_weights=False)[0]


def padded_after_two(x: Tensor) -> Tensor:
    return (torch.arange(x.shape[1]) >= 2).expand(len(x), -1)


def upper_triangle(x: Tensor) -> Tensor:
    return torch.triu(torch.ones(3, x.shape[1], dtype=torch.bool), 1)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    "layer",
    [
        Attending(bias=False),
        Attending(kdim=5, vdim=6),
        Attending(add_zero_attn=True),
        Attending({"key_padding_mask": padded_after_two}),
        Attending({"attn_mask": upper_triangle}),
        Attending({"key_padding_mask": padded_after_two, "attn_mask": upper_triangle}),
        SelfAttending(),
        SelfAttending(bias=False),
    ],
    ids=["no bias", "other widths", "zero key", "padding", "mask", "both", "self", "self, no bias"],
)
def test_multihead_attention_is_exact(layer: nn.Module, share: float) -> None:
    check_features(Headed(layer), noise(2, 4, 8), share)
