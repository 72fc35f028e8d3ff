"""Seeing every use of a wanted parameter while the network runs, whoever's code uses it.

A :class:`UseInterceptor` is active during the forward pass and sees each torch function with its
arguments. A call that takes a wanted parameter and data is a *use*: its rule decides what to save,
and a hook on its output receives the output's gradient for each sample. A call on parameters and
constants alone (a transposed or standardized weight, a table of relative positions) makes a
*derived* parameter, whose uses count the same and whose gradients are pulled back at the end.
Parameters themselves are frozen, so the backward pass computes nothing for them.
"""

import types
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode, _pop_mode_temporarily
from torch.utils.hooks import RemovableHandle

from pipeline.jacobian.call import Call, Gradient, NotCoveredError, Rule, bind, rules_of
from pipeline.jacobian.checks import refuse_recomputation
from pipeline.jacobian.folding import FoldedPass, PairFinder
from pipeline.jacobian.plan import Piece
from pipeline.jacobian.row_order import RowOrder
from pipeline.jacobian.selection import Kept, Selection


@dataclass(frozen=True, eq=False)
class Tracked:
    """A wanted parameter, or a tensor computed from wanted parameters alone."""

    names: tuple[str, ...]
    value: Tensor
    """With a graph back to the leaves, for derived tensors."""
    derived: bool
    ids: Tensor | None = None
    """For rows looked up in one parameter: which."""


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
        self._tracked: dict[int, Tracked] = {}
        self._constants: dict[int, Tensor] = {id(b): b for b in model.buffers()}
        self._rows = RowOrder(samples, lambda tensor: id(tensor) in self._constants)
        for name, parameter in model.named_parameters():
            self._constants[id(parameter)] = parameter
            if name in wanted:
                self._tracked[id(parameter)] = Tracked((name,), parameter, derived=False)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors((*args, *kwargs.values())))
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
        found = [self._tracked[id(t)] for t in tensors if id(t) in self._tracked]
        unknown = [t for t in tensors if id(t) not in self._constants]
        makes_data = not unknown and func in REPEATING and self._makes_data(func, args)
        if not found or not torch.is_grad_enabled():
            if found:
                refuse_recomputation()
            # A use that autograd does not record has no gradient.
            result = func(*args, **kwargs)
            self._note_constants(func, not unknown and not makes_data, args, result)
            return result
        if func in COMPOSITES:
            return COMPOSITES[func](self, func, args, kwargs)
        if func in TYPE_ONLY and id(args[0]) not in self._tracked:
            return func(*args, **kwargs)
        if not makes_data and (not unknown or self._are_trusted(unknown, found)):
            return self._derive(func, args, kwargs, found)
        return self.use(func, args, kwargs, lambda: func(*args, **kwargs))

    def is_plain_constant(self, value: Any) -> bool:
        """Whether a value is a parameter or constant, and not derived from wanted parameters."""
        tracked = self._tracked.get(id(value))
        return id(value) in self._constants and (tracked is None or not tracked.derived)

    def is_derived(self, value: Any) -> bool:
        """Whether a value was computed from wanted parameters alone."""
        return id(value) in self._tracked

    def spread(self, value: Tensor, size: int) -> Tensor:
        """A derived tensor (1, …) given to ``size`` items of the batch, each with its gradient."""
        run = lambda: value.expand(size, *value.shape[1:]).clone()  # noqa: E731
        return self.use(torch.Tensor.expand, (value, size), {}, run)

    # --- constants and derived parameters ---------------------------------------------------

    def _note_constants(self, func: Any, constant: bool, args: Any, result: Any) -> None:
        if constant:
            for tensor in _tensors((result,)):
                self._constants[id(tensor)] = tensor
        elif _in_place(func) and args and id(args[0]) in self._constants:
            del self._constants[id(args[0])]

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
            self._choices[number] = _repeats_over_batch(func, args, self.samples)
        return self._choices[number]

    def _derive(self, func: Any, args: Any, kwargs: dict[str, Any], found: list[Tracked]) -> Any:
        names = tuple(dict.fromkeys(name for t in found for name in t.names))
        with torch.enable_grad():
            result = func(*self._with_graph(args), **self._with_graph(kwargs))
        if not any(True for _ in _tensors((result,))):
            return result
        if _in_place(func):
            self._decline(names, func)
            return result
        plain_lookup = func is F.embedding and not found[0].derived and args[2:3] in ((), (None,))
        ids = args[0] if plain_lookup else None
        return self._remember(result, names, ids)

    def _with_graph(self, values: Any) -> Any:
        """The arguments, with leaves that require gradients in place of the frozen parameters."""
        if isinstance(values, Tensor):
            tracked = self._tracked.get(id(values))
            if tracked is None:
                return values
            return tracked.value if tracked.derived else self._leaf(tracked)
        if isinstance(values, dict):
            return {key: self._with_graph(value) for key, value in values.items()}
        if type(values) in (tuple, list):
            return type(values)(self._with_graph(value) for value in values)
        return values

    def _leaf(self, tracked: Tracked) -> Tensor:
        leaf = self._leaves.get(tracked.names[0])
        if leaf is None:
            leaf = tracked.value.detach().requires_grad_()
            self._leaves[tracked.names[0]] = leaf
        return leaf

    @property
    def _leaves(self) -> dict[str, Tensor]:
        return self.__dict__.setdefault("_leaf_store", {})

    def _remember(self, result: Any, names: tuple[str, ...], ids: Tensor | None = None) -> Any:
        if isinstance(result, Tensor):
            plain = result.detach()
            self._constants[id(plain)] = plain
            if result.requires_grad:
                self._tracked[id(plain)] = Tracked(names, result, derived=True, ids=ids)
            return plain
        if isinstance(result, (tuple, list)):
            return type(result)(self._remember(item, names) for item in result)
        return result

    def module_use(
        self, target: type, arguments: dict[str, Any], own: list[Tensor], run: Callable[[], Any]
    ) -> Any:
        """Run a module whose class has rules: what it does with its own parameters is unseen."""
        found = [
            self._tracked[id(parameter)] for parameter in own if id(parameter) in self._tracked
        ]
        if not found:
            return run()

        def unseen() -> Any:
            hidden = {id(t.value): self._tracked.pop(id(t.value)) for t in found}
            try:
                with self:
                    return run()
            finally:
                self._tracked.update(hidden)

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
        tensors = list(_tensors((*args, *kwargs.values())))
        found = [self._tracked[id(t)] for t in tensors if id(t) in self._tracked]
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
            tracked = self._tracked.get(id(value))
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
        leaves = [self._leaves[name] for name in tracked.names]
        gradients = torch.autograd.grad(
            tracked.value, leaves, cotangents, retain_graph=True, is_grads_batched=True
        )
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


REPEATING = (F.embedding, torch.Tensor.expand, torch.Tensor.repeat)
"""Functions by which constants may be given to every sample."""

TYPE_ONLY = (
    torch.Tensor.to,
    torch.Tensor.type_as,
    torch.Tensor.expand_as,
    torch.Tensor.view_as,
)
"""Functions that look at their other arguments' type and shape alone."""


def _repeats_over_batch(func: Any, args: Any, samples: int) -> bool:
    if func is F.embedding:
        return args[0].ndim > 1 and args[0].shape[0] == samples
    sizes = args[1] if isinstance(args[1], (tuple, list, torch.Size)) else args[1:]
    return samples in sizes[: 1 if func is torch.Tensor.repeat else 2]


class _Root(torch.autograd.Function):
    """Makes a tensor part of the graph without a copy."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        return None, None


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif type(value) in (tuple, list):
            yield from _tensors(value)


def _in_place(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


# --- functions to look into ---------------------------------------------------------------------


def _attention(mode: UseInterceptor, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """A learnt bias as attention mask: each item of the batch gets its own copy."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if mode.is_derived(given.get("attn_mask")) and given["attn_mask"].ndim == given["query"].ndim:
        given["attn_mask"] = mode.spread(given["attn_mask"], len(given["query"]))
    with mode:
        return func(**given)


def _look_inside(mode: UseInterceptor, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
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
"""Functions without a rule whose parts have one."""
