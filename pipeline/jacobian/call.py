"""One use of a parameter: a call of a torch function, as a rule sees it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pipeline.jacobian.selection import Selection

_FORGOTTEN = object()

Gradient = Callable[[Tensor], Tensor]
"""From the gradient at a call's output to per-sample values (n, m) of the kept entries."""


class NotCoveredError(Exception):
    """A rule meets a call it does not cover; the parameter goes through the fallback."""


class OverwrittenError(Exception):
    """A saved tensor was changed in place before the backward pass reached it."""

    def __init__(self, use: int) -> None:
        self.use = use
        super().__init__(f"input of use {use} was changed in place")


@dataclass
class Call:
    """The arguments of one call, and how its batch is laid out."""

    arguments: dict[str, Any]
    samples: int
    """n, the samples of the batch."""
    second: bool = False
    """Samples run along the second axis (length, n, …), not the first."""
    use: int = 0
    """Number of the call in the forward pass."""
    clone: bool = False
    """Copy what is saved: a later in-place operation overwrites it."""
    _saved: list["Saved"] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        value = self.arguments.get(name)
        if value is _FORGOTTEN:
            raise RuntimeError(f"{name!r} is gone after the forward pass: call.save() what is used")
        return value

    def save(self, tensor: Tensor) -> "Saved":
        """Hold a tensor until the backward pass has used it."""
        saved = Saved(tensor.detach().clone() if self.clone else tensor.detach(), self.use)
        self._saved.append(saved)
        return saved

    def forget_tensors(self) -> None:
        """Let go of the arguments, once the rules have saved what they need of them.

        A hook on the output that holds the output would be a cycle, which keeps the batch's
        activations until the garbage collector comes; and an input may be larger than what is kept
        of it.
        """
        for name, value in self.arguments.items():
            if isinstance(value, Tensor):
                self.arguments[name] = _FORGOTTEN

    def release(self) -> None:
        """Let go of everything saved."""
        for saved in self._saved:
            saved.release()

    def per_sample(self, tensor: Tensor) -> Tensor:
        """A tensor (…, d) as (n, T, d): each sample's positions together."""
        width = tensor.shape[-1]
        if tensor[..., 0].numel() % self.samples or (
            not self.second and len(tensor) % self.samples
        ):
            raise NotCoveredError("rows that are no whole number a sample")
        if self.second:
            return tensor.reshape(-1, self.samples, width).transpose(0, 1)
        return tensor.reshape(self.samples, -1, width)

    def fold(self, values: Tensor) -> Tensor:
        """Values (n · f, m) of a batch that holds f items a sample, summed to (n, m)."""
        if self.second:
            raise NotCoveredError("channel-first layers need the samples on the first axis")
        if len(values) == self.samples:
            return values
        if len(values) % self.samples:
            raise NotCoveredError("rows that are no whole number a sample")
        return values.unflatten(0, (self.samples, -1)).sum(1)


class Saved:
    """A tensor held for the backward pass, with a check that nobody changed it meanwhile."""

    def __init__(self, tensor: Tensor, use: int) -> None:
        self._tensor: Tensor | None = tensor
        self._version = tensor._version
        self._use = use

    def __call__(self) -> Tensor:
        """The tensor, as it was when it was saved."""
        assert self._tensor is not None
        if self._tensor._version != self._version:
            raise OverwrittenError(self._use)
        return self._tensor

    def release(self) -> None:
        """Let go of the tensor."""
        self._tensor = None


RuleFunction = Callable[[Call, Selection], Gradient]


@dataclass(frozen=True)
class Rule:
    """A rule for one argument of one function or module class."""

    argument: str
    function: RuleFunction


_RULES: dict[Any, dict[str, Rule]] = {}
_SIGNATURES: dict[Any, tuple[str, ...]] = {}


def rule(
    *targets: Any, argument: str, signature: str | None = None
) -> Callable[[RuleFunction], RuleFunction]:
    """Register the per-sample gradient by one argument of a torch function or a module class.

    ``targets`` are functions as ``torch`` calls them (``torch.nn.functional.linear``,
    ``torch.Tensor.add``) or subclasses of ``nn.Module``; ``argument`` is the parameter's argument
    name (for a module, the name of its own parameter); ``signature`` names the positional
    arguments of functions that Python cannot inspect. Rules of a module class win over those of the
    functions it calls.

    The decorated function runs in the forward pass, *before* the call. It saves what it needs
    (``call.save``) and returns a function from the gradient at the output to the values (n, m) of
    the kept entries. A layer of one's own, with a scale per feature computed by a custom kernel::

        @rule(MyFusedScale, argument="scale")
        def scale(call: Call, keep: Selection) -> Gradient:
            x = call.save(keep.channels(call["x"], -1))

            def gradient(grad: Tensor) -> Tensor:
                products = call.per_sample(keep.channels(grad, -1) * x())
                return keep.finish(products.sum(1))

            return gradient
    """

    def register(function: RuleFunction) -> RuleFunction:
        for target in targets:
            _RULES.setdefault(target, {})[argument] = Rule(argument, function)
            if signature is not None:
                _SIGNATURES[target] = tuple(signature.split())
        return function

    return register


def rules_of(target: Any) -> dict[str, Rule] | None:
    """The rules of a function, or of a module's class, by argument name."""
    return _RULES.get(target)


def bind(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name."""
    if target not in _SIGNATURES:
        _SIGNATURES[target] = tuple(inspect.signature(target).parameters)
    return {**dict(zip(_SIGNATURES[target], args, strict=False)), **kwargs}
