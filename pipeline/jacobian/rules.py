"""The layer rules: from a call's input and output gradient to each sample's parameter gradient.

One rule per function and parameter. ``call`` holds the call's arguments, ``keep`` the entries the
sketch asks for; ``call.per_sample`` brings (…, d) to (n, T, d), with T all positions of one sample
(tokens, windows, pixels). Convolutions are in ``conv.py``. How to add a rule for a layer of one's
own is shown at :func:`pipeline.jacobian.call.rule`.

| layer | parameter | gradient of sample i |
|---|---|---|
| linear, y = xWᵀ + b | W | Σ_t g_t x_tᵀ |
| | b | Σ_t g_t |
| embedding | row r of W | Σ_{t: id_t = r} g_t |
| norms, y = γ x̂ + β | γ, β | Σ_t g_t x̂_t, Σ_t g_t |
| y = x + z, y = x ∘ z | bare parameter z | g, g ∘ x summed over broadcast axes |
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.jacobian.call import Call, Gradient, NotCoveredError, rule
from pipeline.jacobian.selection import Selection

# --- linear maps -----------------------------------------------------------------------------


@rule(F.linear, argument="weight", signature="input weight bias")
def linear_weight(call: Call, keep: Selection) -> Gradient:
    """W (out, in): products of output gradients and inputs."""
    x = call.save(keep.cut_columns(call["input"], -1))

    def gradient(grad: Tensor) -> Tensor:
        left = call.per_sample(keep.cut_rows(grad, -1)).transpose(1, 2)
        return keep.contract(left, call.per_sample(x()).transpose(1, 2))

    return gradient


@rule(torch.addmm, argument="mat2", signature="input mat1 mat2")
@rule(torch.matmul, torch.Tensor.matmul, torch.mm, argument="mat2", signature="mat1 mat2")
def matmul_weight(call: Call, keep: Selection) -> Gradient:
    """W (in, out), as in GPT-2's Conv1D: products of inputs and output gradients."""
    if call["beta"] is not None or call["alpha"] is not None or len(keep.shape) != 2:
        raise NotCoveredError("only x @ W and b + x @ W")
    x = call.save(keep.cut_rows(call["mat1"], -1))

    def gradient(grad: Tensor) -> Tensor:
        right = call.per_sample(keep.cut_columns(grad, -1)).transpose(1, 2)
        return keep.contract(call.per_sample(x()).transpose(1, 2), right)

    return gradient


@rule(F.linear, argument="bias")
@rule(F.layer_norm, argument="bias")
@rule(torch.addmm, argument="input")
def last_axis_bias(call: Call, keep: Selection) -> Gradient:
    """A bias over the last axes: output gradients summed over positions."""

    def gradient(grad: Tensor) -> Tensor:
        channels = keep.channels(_flat_features(grad, keep), -1)
        return keep.finish(call.per_sample(channels).sum(1))

    return gradient


@rule(F.embedding, argument="weight")
def embedding_weight(call: Call, keep: Selection) -> Gradient:
    """W (vocabulary, d): each token adds its output gradient to its row."""
    if call["max_norm"] is not None:
        raise NotCoveredError("max_norm changes the weight in the forward pass")
    padding = call["padding_idx"]
    tokens = call.save(call["input"])

    def gradient(grad: Tensor) -> Tensor:
        ids = call.per_sample(tokens().unsqueeze(-1)).squeeze(-1)
        rows = call.per_sample(grad)
        if padding is not None:
            rows = rows.masked_fill((ids == padding % keep.rows).unsqueeze(-1), 0)
        return keep.lookup(ids, rows)

    return gradient


# --- normalization ---------------------------------------------------------------------------


@rule(F.batch_norm, argument="weight")
def batch_norm_weight(call: Call, keep: Selection) -> Gradient:
    """γ of BatchNorm in eval mode; only the kept channels are normalized."""
    if call["training"]:
        raise NotCoveredError("BatchNorm in training mode mixes samples")
    mean, variance = (keep.channels(call[f"running_{x}"], 0) for x in ("mean", "var"))
    scale = torch.rsqrt(variance + (1e-5 if call["eps"] is None else call["eps"]))
    x = keep.channels(call["input"], 1)
    x_hat = call.save((x - _channel(mean, x)) * _channel(scale, x))
    return _channel_sums(call, keep, lambda grad: grad * x_hat())


@rule(F.group_norm, argument="weight")
def group_norm_weight(call: Call, keep: Selection) -> Gradient:
    """γ of GroupNorm."""
    x = call.save(call["input"])

    def scaled(grad: Tensor) -> Tensor:
        x_hat = F.group_norm(x(), call["num_groups"], eps=_eps(call, 1e-5))
        return grad * keep.channels(x_hat, 1)

    return _channel_sums(call, keep, scaled)


@rule(F.instance_norm, argument="weight")
def instance_norm_weight(call: Call, keep: Selection) -> Gradient:
    """γ of InstanceNorm."""
    x = call.save(call["input"])
    statistics = call["running_mean"], call["running_var"]
    own = call["use_input_stats"] is not False

    def scaled(grad: Tensor) -> Tensor:
        x_hat = F.instance_norm(x(), *statistics, use_input_stats=own, eps=_eps(call, 1e-5))
        return grad * keep.channels(x_hat, 1)

    return _channel_sums(call, keep, scaled)


@rule(F.batch_norm, F.group_norm, F.instance_norm, argument="bias")
def channel_bias(call: Call, keep: Selection) -> Gradient:
    """A bias per channel of (n, channels, …): output gradients summed over space."""
    return _channel_sums(call, keep, lambda grad: grad)


@rule(F.layer_norm, argument="weight")
def layer_norm_weight(call: Call, keep: Selection) -> Gradient:
    """γ of LayerNorm."""
    x = call.save(call["input"])
    shape, eps = call["normalized_shape"], _eps(call, 1e-5)
    return _feature_sums(call, keep, lambda: F.layer_norm(x(), shape, eps=eps))


@rule(F.rms_norm, argument="weight")
def rms_norm_weight(call: Call, keep: Selection) -> Gradient:
    """γ of RMSNorm."""
    x = call.save(call["input"])
    shape, eps = call["normalized_shape"], call["eps"]
    return _feature_sums(call, keep, lambda: F.rms_norm(x(), shape, eps=eps))


# --- bare parameters -------------------------------------------------------------------------

PAIR = "input other"


@rule(torch.add, torch.Tensor.add, torch.Tensor.add_, argument="input", signature=PAIR)
@rule(torch.add, torch.Tensor.add, torch.Tensor.add_, argument="other")
@rule(torch.sub, torch.Tensor.sub, torch.Tensor.sub_, argument="input", signature=PAIR)
def added(call: Call, keep: Selection) -> Gradient:
    """z in x + z and z − x."""
    if call["alpha"] is not None:
        raise NotCoveredError("add with alpha")
    return lambda grad: keep.select(_reduced(call, grad, keep.shape))


@rule(torch.sub, torch.Tensor.sub, torch.Tensor.sub_, argument="other")
def subtracted(call: Call, keep: Selection) -> Gradient:
    """z in x − z."""
    if call["alpha"] is not None:
        raise NotCoveredError("sub with alpha")
    return lambda grad: -keep.select(_reduced(call, grad, keep.shape))


@rule(torch.mul, torch.Tensor.mul, torch.Tensor.mul_, argument="other", signature=PAIR)
def multiplied(call: Call, keep: Selection) -> Gradient:
    """z in x ∘ z (layer scales, hand-written norms)."""
    return _times(call, call["input"], keep)


@rule(torch.mul, torch.Tensor.mul, argument="input")
def multiplied_left(call: Call, keep: Selection) -> Gradient:
    """z in z ∘ x."""
    return _times(call, call["other"], keep)


@rule(F.prelu, argument="weight", signature="input weight")
def prelu_weight(call: Call, keep: Selection) -> Gradient:
    """Slopes of PReLU: one for all, or one per channel."""
    x = call.save(call["input"])

    def gradient(grad: Tensor) -> Tensor:
        slopes = grad * x().clamp(max=0)
        by_channel = call.fold(slopes.flatten(2).sum(2) if slopes.ndim > 2 else slopes)
        return keep.select(by_channel if keep.rows > 1 else by_channel.sum(1, keepdim=True))

    return gradient


@rule(torch.Tensor.expand, torch.Tensor.repeat, argument="input", signature="input")
def repeated_over_batch(call: Call, keep: Selection) -> Gradient:
    """A class token given to every sample: each copy has its own gradient."""
    return lambda grad: keep.select(_reduced(call, grad, keep.shape))


# --- shared pieces ---------------------------------------------------------------------------


def _eps(call: Call, default: float) -> float:
    return default if call["eps"] is None else call["eps"]


def _channel(values: Tensor, like: Tensor) -> Tensor:
    """Values per channel, broadcastable over (n, channels, …)."""
    return values.view(-1, *(1,) * (like.ndim - 2))


def _channel_sums(call: Call, keep: Selection, scaled: Any) -> Gradient:
    """Σ over space of a function of the kept channels' gradient (n, channels, …)."""

    def gradient(grad: Tensor) -> Tensor:
        products = scaled(keep.channels(grad, 1))
        sums = products.flatten(2).sum(2) if products.ndim > 2 else products
        return keep.finish(call.fold(sums))

    return gradient


def _feature_sums(call: Call, keep: Selection, normalized: Any) -> Gradient:
    """Σ_t g_t x̂_t over the last axes, the parameter's."""

    def gradient(grad: Tensor) -> Tensor:
        x_hat = keep.channels(_flat_features(normalized(), keep), -1)
        products = keep.channels(_flat_features(grad, keep), -1) * x_hat
        return keep.finish(call.per_sample(products).sum(1))

    return gradient


def _times(call: Call, x: Tensor, keep: Selection) -> Gradient:
    """The gradient g ∘ x, summed over the axes along which z was broadcast."""
    saved = call.save(x)
    return lambda grad: keep.select(_reduced(call, grad * saved(), keep.shape))


def _flat_features(tensor: Tensor, keep: Selection) -> Tensor:
    """The axes of the parameter, the last ones, as one."""
    return tensor.flatten(-len(keep.shape)) if len(keep.shape) > 1 else tensor


def _reduced(call: Call, grad: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(n, *shape): each sample's gradient, summed over the axes along which z was broadcast."""
    axis = 1 if call.second else 0
    aligned = (1,) * (grad.ndim - len(shape)) + tuple(shape)
    if aligned[axis] != 1:
        raise NotCoveredError("a parameter that varies over the samples' axis")
    grad = grad.movedim(axis, 0)
    rest = aligned[:axis] + aligned[axis + 1 :]
    if len(grad) % call.samples:
        raise NotCoveredError("the batch is not on the first axis")
    grad = grad.unflatten(0, (call.samples, -1))
    summed = [1] + [2 + i for i, size in enumerate(rest) if size == 1]
    return grad.sum(summed).reshape(call.samples, *shape)
