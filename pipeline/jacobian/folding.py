"""A convolution followed by BatchNorm in eval mode, computed as one convolution.

With s = γ/√(σ² + ε), ŷ = conv(x; sW) + β + s(b − μ) is the BatchNorm's output: two passes over the
activations less in the forward direction, two in the backward. The gradients come from ŷ's:

    ∂f/∂W = s ∘ (∂f/∂ŷ ⋆ x),   ∂f/∂γ = Σ ∂f/∂ŷ · (ŷ − β)/γ,   ∂f/∂β = Σ ∂f/∂ŷ.

Pairs are found on the first batch: a convolution whose output one BatchNorm, and nothing else,
takes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.jacobian.call import Call, Gradient, bind, rule
from pipeline.jacobian.conv import CONVOLUTIONS
from pipeline.jacobian.rules import channel_bias
from pipeline.jacobian.selection import Selection
from pipeline.jacobian.tensor_version import Version, tensor_version

LARGEST_SHIFT = 30.0
"""|β| / |γ| beyond which (ŷ − β)/γ would lose digits; such a pair stays apart."""


class FoldBrokenError(Exception):
    """The network did not run as on its first batch: a folded output was used elsewhere."""


@dataclass(eq=False)
class Pair:
    """One convolution and the BatchNorm after it, with the folded weights."""

    weight: Tensor
    bias: Tensor | None
    mean: Tensor
    variance: Tensor
    gamma: Tensor | None
    beta: Tensor | None
    eps: float
    _versions: tuple[Version | None, ...] = ()
    _folded: tuple[Tensor, Tensor, Tensor] | None = field(default=None)

    def folded(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """sW, the new bias and s, made anew when a weight changed; None where γ is too small."""
        own = (self.weight, self.bias, self.mean, self.variance, self.gamma, self.beta)
        versions = tuple(None if tensor is None else tensor_version(tensor) for tensor in own)
        if versions != self._versions:
            self._versions, self._folded = versions, self._fold()
        return self._folded

    def _fold(self) -> tuple[Tensor, Tensor, Tensor] | None:
        with torch.no_grad():
            gamma = torch.ones_like(self.mean) if self.gamma is None else self.gamma
            beta = torch.zeros_like(self.mean) if self.beta is None else self.beta
            if not bool((beta.abs() <= LARGEST_SHIFT * gamma.abs()).all() and (gamma != 0).all()):
                return None
            scale = gamma * torch.rsqrt(self.variance + self.eps)
            before = -self.mean if self.bias is None else self.bias - self.mean
            weight = self.weight * scale.view(-1, *(1,) * (self.weight.ndim - 1))
            return weight, beta + scale * before, scale


def folded_batch_norm(output: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The BatchNorm of a folded pair: its work is done."""
    return output


@rule(folded_batch_norm, argument="weight")
def folded_weight(call: Call, keep: Selection) -> Gradient:
    """γ, from the pair's output: x̂ = (ŷ − β)/γ on the kept channels."""
    y = keep.channels(call["output"].detach(), 1)
    shape = (-1, *(1,) * (y.ndim - 2))
    if call["bias"] is not None:
        y = y - keep.channels(call["bias"], 0).view(shape)
    x_hat = call.save(y / keep.channels(call["weight"], 0).view(shape))

    def gradient(grad: Tensor) -> Tensor:
        products = keep.channels(grad, 1) * x_hat()
        return keep.finish(call.fold(products.flatten(2).sum(2)))

    return gradient


rule(folded_batch_norm, argument="bias")(channel_bias)


class PairFinder:
    """Watches one pass for convolutions whose output one BatchNorm takes, and nothing else."""

    def __init__(self, is_constant: Callable[[Any], bool]) -> None:
        self._is_constant = is_constant
        self._convolutions: list[tuple[Tensor, dict[str, Any]]] = []
        self._number: dict[int, int] = {}
        self._takers: dict[int, list[dict[str, Any] | None]] = {}

    def note(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor], result: Any) -> None:
        """Remember a call."""
        if isinstance(result, Tensor):
            for number in {self._number[id(t)] for t in tensors if id(t) in self._number}:
                norm = bind(func, args, kwargs) if func is F.batch_norm else None
                self._takers.setdefault(number, []).append(norm)
        if func in CONVOLUTIONS:
            self._number[id(result)] = len(self._convolutions)
            self._convolutions.append((result, bind(func, args, kwargs)))

    def pairs(self) -> dict[int, Pair]:
        """The pairs found, by the convolution's place among all convolutions."""
        found = {}
        for number, takers in self._takers.items():
            conv, norm = self._convolutions[number][1], takers[0]
            if len(takers) == 1 and norm is not None and self._foldable(conv, norm):
                found[number] = Pair(
                    conv["weight"],
                    conv.get("bias"),
                    norm["running_mean"],
                    norm["running_var"],
                    norm.get("weight"),
                    norm.get("bias"),
                    norm.get("eps", 1e-5),
                )
        return {number: pair for number, pair in found.items() if pair.folded() is not None}

    def _foldable(self, conv: dict[str, Any], norm: dict[str, Any]) -> bool:
        if norm.get("training") or conv["input"].ndim != conv["weight"].ndim:
            return False
        required = (conv["weight"], norm.get("running_mean"), norm.get("running_var"))
        optional = (conv.get("bias"), norm.get("weight"), norm.get("bias"))
        return all(self._is_constant(t) for t in required) and all(
            t is None or self._is_constant(t) for t in optional
        )


class FoldedPass:
    """Runs known pairs as one convolution each, during one forward pass."""

    def __init__(self, pairs: dict[int, Pair]) -> None:
        self._pairs = pairs
        self._next = 0
        self._pending: dict[int, tuple[Tensor, Pair]] = {}

    def run(self, mode: Any, func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        """The result of a call that belongs to a pair; NotImplemented for any other."""
        if func in CONVOLUTIONS:
            self._next += 1
            pair = self._pairs.get(self._next - 1)
            if pair is not None:
                return self._convolve(mode, func, args, kwargs, pair)
        elif self._pending:
            taken = [self._pending[id(t)] for t in tensors if id(t) in self._pending]
            if taken:
                return self._normalize(mode, func, args, kwargs, *taken[0])
        return NotImplemented

    def finish(self) -> None:
        """Raise unless every folded convolution met its BatchNorm."""
        if self._pending:
            raise FoldBrokenError

    def _convolve(self, mode: Any, func: Any, args: Any, kwargs: Any, pair: Pair) -> Any:
        arguments = bind(func, args, kwargs)
        folded = pair.folded()
        if folded is None or arguments["weight"] is not pair.weight:
            raise FoldBrokenError
        weight, bias, scale = folded
        replaced = {**arguments, "weight": weight, "bias": bias}
        output = mode.use(func, (), arguments, lambda: func(**replaced), scale)
        self._pending[id(output)] = (output, pair)
        return output

    def _normalize(
        self, mode: Any, func: Any, args: Any, kwargs: Any, output: Tensor, pair: Pair
    ) -> Any:
        if func is not F.batch_norm:
            if isinstance(func(*args, **kwargs), Tensor):
                raise FoldBrokenError
            return func(*args, **kwargs)
        arguments = bind(func, args, kwargs)
        if arguments["running_mean"] is not pair.mean or arguments.get("weight") is not pair.gamma:
            raise FoldBrokenError
        del self._pending[id(output)]
        own = {"output": output, "weight": pair.gamma, "bias": pair.beta}
        return mode.use(folded_batch_norm, (), own, lambda: output)
