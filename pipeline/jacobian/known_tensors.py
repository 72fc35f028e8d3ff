"""The tensors of a forward pass that do not depend on the data.

Parameters and buffers, constants made of them, and *derived* tensors: what is computed from wanted
parameters alone (a transposed or standardized weight, a table of relative positions). The network
runs on frozen parameters; a derived tensor is computed a second time from leaves that require
gradients, so that its own gradient can be pulled back to them.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.jacobian.torch_calls import in_place, tensors_in


@dataclass(frozen=True, eq=False)
class Tracked:
    """A wanted parameter, or a tensor computed from wanted parameters alone."""

    names: tuple[str, ...]
    value: Tensor
    """With a graph back to the leaves, for derived tensors."""
    derived: bool
    ids: Tensor | None = None
    """For rows looked up in one parameter: which."""


class KnownTensors:
    """What one forward pass has met so far; tensors are told apart by identity."""

    def __init__(self, model: nn.Module, wanted: Collection[str]) -> None:
        # The tensors are held, so that their ids stay theirs.
        self._constants: dict[int, Tensor] = {id(b): b for b in model.buffers()}
        self._tracked: dict[int, Tracked] = {}
        self._leaves: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            self._constants[id(parameter)] = parameter
            if name in wanted:
                self._tracked[id(parameter)] = Tracked((name,), parameter, derived=False)

    def tracked(self, value: Any) -> Tracked | None:
        """What is known of a wanted parameter or a derived tensor."""
        return self._tracked.get(id(value))

    def tracked_among(self, tensors: Iterable[Tensor]) -> list[Tracked]:
        """Those of the tensors that are wanted or derived."""
        return [self._tracked[id(t)] for t in tensors if id(t) in self._tracked]

    def is_constant(self, value: Any) -> bool:
        """Whether a value does not depend on the data."""
        return id(value) in self._constants

    def is_plain_constant(self, value: Any) -> bool:
        """Whether a value is a parameter or constant, and not derived from wanted parameters."""
        tracked = self.tracked(value)
        return self.is_constant(value) and (tracked is None or not tracked.derived)

    def note(self, func: Any, constant: bool, args: Any, result: Any) -> None:
        """A call without wanted parameters: its result is constant, or data is written to one."""
        if constant:
            for tensor in tensors_in((result,)):
                self._constants[id(tensor)] = tensor
        elif in_place(func) and args and self.is_constant(args[0]):
            del self._constants[id(args[0])]

    def derive(self, func: Any, args: Any, kwargs: dict[str, Any], found: list[Tracked]) -> Any:
        """Run a call on wanted parameters and constants alone; its result is derived."""
        with torch.enable_grad():
            result = func(*self._with_graph(args), **self._with_graph(kwargs))
        if in_place(func) or not any(True for _ in tensors_in((result,))):
            return result
        names = tuple(dict.fromkeys(name for tracked in found for name in tracked.names))
        plain_lookup = func is F.embedding and not found[0].derived and args[2:3] in ((), (None,))
        return self._remembered(result, names, args[0] if plain_lookup else None)

    def pulled_back(self, tracked: Tracked, cotangents: Tensor) -> tuple[Tensor, ...]:
        """Gradients (b, …) of a derived tensor's parameters, from its own (b, …), in its names'
        order."""
        leaves = [self._leaves[name] for name in tracked.names]
        return torch.autograd.grad(
            tracked.value, leaves, cotangents, retain_graph=True, is_grads_batched=True
        )

    @contextmanager
    def forgotten(self, found: Iterable[Tracked]) -> Iterator[None]:
        """Inside, these wanted parameters pass for constants."""
        hidden = {id(t.value): self._tracked.pop(id(t.value)) for t in found}
        try:
            yield
        finally:
            self._tracked.update(hidden)

    def _with_graph(self, values: Any) -> Any:
        """The arguments, with leaves that require gradients in place of the frozen parameters."""
        if isinstance(values, Tensor):
            tracked = self.tracked(values)
            if tracked is None:
                return values
            return tracked.value if tracked.derived else self._leaf(tracked)
        if isinstance(values, dict):
            return {key: self._with_graph(value) for key, value in values.items()}
        if type(values) in (tuple, list):
            return type(values)(self._with_graph(value) for value in values)
        return values

    def _leaf(self, tracked: Tracked) -> Tensor:
        name = tracked.names[0]
        if name not in self._leaves:
            self._leaves[name] = tracked.value.detach().requires_grad_()
        return self._leaves[name]

    def _remembered(self, result: Any, names: tuple[str, ...], ids: Tensor | None) -> Any:
        if isinstance(result, Tensor):
            plain = result.detach()
            self._constants[id(plain)] = plain
            if result.requires_grad:
                self._tracked[id(plain)] = Tracked(names, result, derived=True, ids=ids)
            return plain
        if isinstance(result, (tuple, list)):
            return type(result)(self._remembered(item, names, None) for item in result)
        return result
