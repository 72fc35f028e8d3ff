"""Seeing every use of a wanted parameter while the network runs, whoever's code uses it.

A :class:`UseInterceptor` is active during the forward pass and sees each torch function with its
arguments. A call that takes a wanted parameter and data is a *use*: its rule decides what to save,
and a hook on its output receives the output's gradient for each sample. A call on parameters and
constants alone (a transposed or standardized weight, a table of relative positions) makes a
*derived* parameter, whose uses count the same and whose gradients are pulled back at the end.
Parameters themselves are frozen, so the backward pass computes nothing for them.
"""

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode, _pop_mode_temporarily
from torch.utils.hooks import RemovableHandle

from pipeline.jacobian.call import Call, Gradient, NotCoveredError, Rule, bind, rules_of
from pipeline.jacobian.checks import refuse_recomputation
from pipeline.jacobian.composites import COMPOSITES
from pipeline.jacobian.folding import FoldedPass, PairFinder
from pipeline.jacobian.known_tensors import KnownTensors, Tracked
from pipeline.jacobian.plan import Piece
from pipeline.jacobian.row_order import RowOrder
from pipeline.jacobian.selection import Kept, Selection
from pipeline.jacobian.torch_calls import (
    REPEATING,
    TYPE_ONLY,
    in_place,
    repeats_over_batch,
    tensors_in,
)

Put = Callable[[Piece, Tensor], None]
"""Takes one use's values (n, m) of a piece."""


@dataclass(frozen=True, eq=False)
class Step:
    """What to do with an output's gradient, for one piece of one parameter."""

    names: tuple[str, ...]
    gradient: Gradient
    add: Callable[[Tensor], None]


class UseInterceptor(TorchFunctionMode):
    """Hooks every use of the wanted parameters of one forward pass.

    After the pass, ``declined`` holds the parameters some use of which no rule covers; after the
    backward pass, ``failed`` those whose rule met a layout that is not theirs.
    """

    def __init__(
        self,
        model: nn.Module,
        wanted: dict[str, list[Piece]],
        *,
        samples: int,
        second: Set[str] = frozenset(),
        trusting: Set[str] = frozenset(),
        clones: Set[int] = frozenset(),
        choices: dict[int, bool],
        folds: FoldedPass | None = None,
    ) -> None:
        super().__init__()
        self.samples = samples
        self.put: Put | None = None
        """Where the backward pass puts values: set before it."""
        self.declined: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.keep_saved = False
        """Set while further backward passes will follow."""
        self.anchor = torch.zeros((), device=next(model.parameters()).device, requires_grad=True)
        self.used: set[str] = set()
        self._wanted = wanted
        self._second = second
        self._trusting = trusting
        self._clones = clones
        self.finder: PairFinder | None = None
        """Watches for pairs to fold, where one is set."""
        self.folds = folds
        self._choices = choices
        self._hooks: list[RemovableHandle] = []
        self._constant_calls = 0
        self._uses = 0
        self._known = KnownTensors(model, wanted)
        self._rows = RowOrder(samples, self._known.is_constant)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = list(tensors_in((*args, *kwargs.values())))
        if self.folds is not None:
            result = self.folds.run(self, func, args, kwargs, tensors)
            if result is not NotImplemented:
                return result
        result = self._run(func, args, kwargs, tensors)
        self._rows.note(func, args, kwargs, tensors, result)
        if self.finder is not None:
            self.finder.note(func, args, kwargs, tensors, result)
        return result

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
        known = self._known
        found = known.tracked_among(tensors)
        unknown = [tensor for tensor in tensors if not known.is_constant(tensor)]
        makes_data = not unknown and func in REPEATING and self._makes_data(func, args)
        if not found or not torch.is_grad_enabled():
            if found:
                refuse_recomputation()
            # A use that autograd does not record has no gradient.
            result = func(*args, **kwargs)
            known.note(func, not unknown and not makes_data, args, result)
            return result
        if func in COMPOSITES:
            return COMPOSITES[func](self, func, args, kwargs)
        if func in TYPE_ONLY and known.tracked(args[0]) is None:
            return func(*args, **kwargs)
        if not makes_data and (not unknown or self._are_trusted(unknown, found)):
            if in_place(func):
                self._decline([name for tracked in found for name in tracked.names], func)
            return known.derive(func, args, kwargs, found)
        return self.use(func, args, kwargs, lambda: func(*args, **kwargs))

    def is_plain_constant(self, value: Any) -> bool:
        """Whether a value is a parameter or constant, and not derived from wanted parameters."""
        return self._known.is_plain_constant(value)

    def is_derived(self, value: Any) -> bool:
        """Whether a value was computed from wanted parameters alone."""
        return self._known.tracked(value) is not None

    def spread(self, value: Tensor, size: int) -> Tensor:
        """A derived tensor (1, …) given to ``size`` items of the batch, each with its gradient."""
        run = lambda: value.expand(size, *value.shape[1:]).clone()  # noqa: E731
        return self.use(torch.Tensor.expand, (value, size), {}, run)

    def _are_trusted(self, unknown: list[Tensor], found: list[Tracked]) -> bool:
        """Whether these are taken for constants: indices made before the pass, by a cache."""
        trusting = any(name in self._trusting for tracked in found for name in tracked.names)
        return trusting and not any(t.is_floating_point() for t in unknown)

    def _makes_data(self, func: Any, args: Any) -> bool:
        """Whether a call on constants gives every sample its own copy, by its first run's shapes.

        Two samples decide (a class token expanded to the batch, ids that are the same for all);
        later batches follow, for there the batch may be as long as the text.
        """
        self._constant_calls += 1
        number = self._constant_calls
        if number not in self._choices:
            self._choices[number] = repeats_over_batch(func, args, self.samples)
        return self._choices[number]

    def module_use(
        self, target: type, arguments: dict[str, Any], own: list[Tensor], run: Callable[[], Any]
    ) -> Any:
        """Run a module whose class has rules: what it does with its own parameters is unseen."""
        found = self._known.tracked_among(own)
        if not found:
            return run()

        def unseen() -> Any:
            with self._known.forgotten(found), self:
                return run()

        # The mode is active here; what the rules themselves compute must not count as uses.
        with _pop_mode_temporarily():
            return self.use(target, (), arguments, unseen)

    # --- uses -------------------------------------------------------------------------------

    def use(
        self,
        target: Any,
        args: Any,
        kwargs: dict[str, Any],
        run: Callable[[], Any],
        scale: Tensor | None = None,
    ) -> Any:
        """Run a call that uses tracked tensors, with a hook on its output.

        ``scale``: factors of the weight's rows between the gradients that the rules find and the
        parameter's.
        """
        self._uses += 1
        tensors = list(tensors_in((*args, *kwargs.values())))
        found = self._known.tracked_among(tensors)
        names = {name for tracked in found for name in tracked.names}
        rules = rules_of(target)
        if rules is None or not self._rows.is_kept(tensors):
            self._decline(names, target, "" if rules is None else "rows chosen by an index")
            return run()
        if any(is_functorch_wrapped_tensor(tensor) for tensor in tensors):
            self._decline(names, target, "within a transform of torch.func")
            return run()
        arguments = bind(target, args, kwargs) if args else dict(kwargs)
        second = any(name in self._second for name in names)
        clone = self._uses in self._clones
        call = Call(arguments, self.samples, second, use=self._uses, clone=clone)
        steps = list(self._steps(target, rules, call, found, scale))
        call.forget_tensors()
        output = run()
        return self._tapped(output, call, steps) if steps else output

    def _steps(
        self,
        target: Any,
        rules: dict[str, Rule],
        call: Call,
        found: list[Tracked],
        scale: Tensor | None,
    ) -> Iterator["Step"]:
        """A gradient function and the place for its values, for each wanted piece."""
        covered = set()
        for argument, value in call.arguments.items():
            tracked = self._known.tracked(value)
            if tracked is None or argument not in rules:
                continue
            covered.add(id(tracked))
            try:
                yield from self._pieces(rules[argument], call, tracked, scale)
                self.used.update(tracked.names)
            except NotCoveredError as reason:
                self._decline(tracked.names, target, str(reason))
        for tracked in found:
            if id(tracked) not in covered:
                self._decline(tracked.names, target)

    def _pieces(
        self, rule: Rule, call: Call, tracked: Tracked, scale: Tensor | None
    ) -> Iterator["Step"]:
        if tracked.derived:
            shape = tracked.value.shape
            everything = torch.arange(shape.numel(), device=tracked.value.device)
            kept = Kept(tuple(shape), everything)
            gradient = rule.function(call, kept)
            yield Step(tracked.names, gradient, lambda v: self._pull_back(tracked, kept, v))
            return
        for piece in self._wanted[tracked.names[0]]:
            keep: Selection = piece.keep
            add = self._adder(piece)
            if scale is not None:
                keep, add = keep.with_row_scale(scale, add)
            yield Step(tracked.names, rule.function(call, keep), add)

    def _adder(self, piece: Piece) -> Callable[[Tensor], None]:
        return lambda values: self._deliver(piece, values)

    def _deliver(self, piece: Piece, values: Tensor) -> None:
        assert self.put is not None
        self.put(piece, values)

    def _pull_back(self, tracked: Tracked, kept: Kept, values: Tensor) -> None:
        """From a derived tensor's per-sample gradient to its parameters'."""
        whole = torch.empty_like(values)
        whole[:, kept.entries] = values
        cotangents = whole.view(-1, *tracked.value.shape).to(tracked.value.dtype)
        if tracked.ids is not None:
            # Without this, all rows of a table of positions would be formed for every sample.
            ids = tracked.ids.flatten().expand(len(values), -1)
            for piece in self._wanted[tracked.names[0]]:
                self._deliver(piece, piece.keep.lookup(ids, cotangents.flatten(1, -2)))
            return
        gradients = self._known.pulled_back(tracked, cotangents)
        for name, gradient in zip(tracked.names, gradients, strict=True):
            for piece in self._wanted[name]:
                self._deliver(piece, piece.keep.select(gradient))

    def _tapped(self, output: Any, call: Call, steps: list["Step"]) -> Any:
        if not output.requires_grad:
            # The first use: nothing before it needs gradients, the graph starts here.
            output = output.clone() if output._is_view() else output
            output = _Root.apply(output, self.anchor)

        def consume(grad: Tensor) -> None:
            for step in steps:
                if self.put is None:
                    self._decline(step.names, "a gradient within the forward pass")
                    continue
                try:
                    step.add(step.gradient(grad))
                except NotCoveredError as reason:
                    self.failed.update(dict.fromkeys(step.names, str(reason)))
            if not self.keep_saved:
                call.release()

        self._hooks.append(output.register_hook(consume))
        return output

    def release(self) -> None:
        """Take the hooks off again.

        A hook that knows its own tensor, as a folded pair's does, is a circle through autograd's
        graph, which Python cannot collect: every batch's activations would stay in memory.
        """
        for hook in self._hooks:
            hook.remove()

    def _decline(self, names: Iterable[str], target: Any, reason: str = "") -> None:
        label = str(getattr(target, "__name__", target))
        for name in names:
            self.declined.setdefault(name, f"{label}: {reason}" if reason else label)


class _Root(torch.autograd.Function):
    """Makes a tensor part of the graph without a copy."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        return None, None
