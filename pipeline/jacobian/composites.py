"""Torch functions without a rule whose parts have one: they are looked into."""

import types
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


class Mode(AbstractContextManager[Any], Protocol):
    """What sees the calls of a forward pass while it is entered."""

    def is_derived(self, value: Any) -> bool:
        """Whether a value was computed from wanted parameters alone."""

    def spread(self, value: Tensor, size: int) -> Tensor:
        """A derived tensor (1, …) given to ``size`` items of the batch."""


def _attention(mode: Mode, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """A learnt bias as attention mask: each item of the batch gets its own copy."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if mode.is_derived(given.get("attn_mask")) and given["attn_mask"].ndim == given["query"].ndim:
        given["attn_mask"] = mode.spread(given["attn_mask"], len(given["query"]))
    with mode:
        return func(**given)


def _look_inside(mode: Mode, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run a composite torch function so that the mode sees what it calls, not itself."""
    names = {**func.__globals__, "has_torch_function": lambda _: False}
    inner = types.FunctionType(func.__code__, names, func.__name__, func.__defaults__)
    inner.__kwdefaults__ = func.__kwdefaults__
    with mode:
        return inner(*args, **kwargs)


COMPOSITES: dict[Any, Callable[..., Any]] = {
    F.multi_head_attention_forward: _look_inside,
    F.scaled_dot_product_attention: _attention,
}
"""Called with the mode, the function and its arguments."""
