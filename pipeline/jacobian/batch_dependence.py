"""A network run on two samples and on one: whatever mixes or randomizes them is refused by name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.jit import ScriptModule

from pipeline.types import InputError, Inputs, run_model, slice_inputs

Scalars = Callable[[Tensor], Tensor]


def refuse_batch_dependence(
    model: nn.Module, inputs: Inputs, tolerance: float, scalars: Scalars
) -> None:
    """Compare a sample's outputs alone and beside another one, module by module.

    Raises :class:`InputError` with the first module whose output differs, or that does not run.
    """
    together = _traced(model, slice_inputs(inputs, slice(0, 2)), scalars)
    if together.error is not None:
        raise InputError(
            f"{together.stopped} does not run on these inputs, {described(inputs)} of two samples: "
            f"{together.error}. Expected one batch as the network takes it."
        ) from together.error
    name = _first_difference(
        together, _traced(model, slice_inputs(inputs, slice(0, 2)), scalars), 1.0, tolerance
    )
    if name is not None:
        raise InputError(
            f"{name} gives another output when it runs again: the network is random. "
            "Call model.eval(), and switch its noise off."
        )
    alone = _traced(model, slice_inputs(inputs, slice(0, 1)), scalars)
    if alone.error is not None:
        raise InputError(
            f"{alone.stopped} runs on two samples and not on one alone: {alone.error}. A sample "
            "must not need neighbours. Replace the module, or switch it to eval mode."
        ) from alone.error
    name = _first_difference(together, alone, 0.5, tolerance)
    if name is not None:
        raise InputError(
            f"{name} mixes the samples of a batch: a sample's output changes with its neighbours, "
            "so it has no gradient of its own. Replace the module, or switch it to eval mode."
        )


def described(inputs: Inputs) -> str:
    """Shapes and types of a batch's tensors."""
    tensors = {"": inputs} if isinstance(inputs, Tensor) else inputs
    return ", ".join(
        f"{name} {tuple(t.shape)} {t.dtype}".strip().replace("torch.", "")
        for name, t in tensors.items()
    )


@dataclass
class _Trace:
    """One forward pass, as far as it went."""

    seen: list[tuple[str, Tensor]] = field(default_factory=list)
    """Name and :func:`_summary` of every module's output, in the order in which modules end; the
    network's logits and the differentiated scalars are the last two."""
    running: list[str] = field(default_factory=list)
    """The modules entered and not left."""
    error: Exception | None = None
    stopped: str = ""
    """The innermost module that was running when the error came."""


def _traced(model: nn.Module, inputs: Inputs, scalars: Scalars) -> _Trace:
    trace = _Trace()

    def enter(name: str) -> Any:
        return lambda _, __: trace.running.append(name)

    def leave(name: str) -> Any:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            del trace.running[trace.running.index(name) :]
            first = output[0] if isinstance(output, (tuple, list)) and output else output
            if _is_told(first):
                trace.seen.append((name, _summary(first)))

        return note

    handles = []
    for name, module in model.named_modules():
        if name and not isinstance(module, ScriptModule):  # scripted modules take no hooks
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(leave(name)))
    own = type(model).__name__
    try:
        with torch.no_grad():
            logits = _floating(run_model(model, inputs), "the network")
            values = _floating(scalars(logits), "the output function")
        trace.seen += [(own, _summary(logits)), ("the output function", _summary(values))]
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        trace.error, trace.stopped = error, (trace.running or [own])[-1]
    finally:
        for handle in handles:
            handle.remove()
    return trace


def _floating(values: Tensor, what: str) -> Tensor:
    if not values.is_floating_point():
        kind = str(values.dtype).removeprefix("torch.")
        raise InputError(f"{what} returns {kind}, which has no gradient; expected real numbers.")
    return values


def _is_told(output: Any) -> bool:
    """Whether a module's output can be compared: inside a network's own vmap it has no values."""
    return (
        isinstance(output, Tensor)
        and output.is_floating_point()
        and output.numel() > 0
        and not is_functorch_wrapped_tensor(output)
    )


def _summary(output: Tensor) -> Tensor:
    """Norm and a random combination of each row: outputs themselves would fill the memory."""
    rows = output.detach().reshape(len(output) if output.ndim else 1, -1)
    generator = torch.Generator().manual_seed(rows.shape[1])
    signs = torch.randint(0, 2, (rows.shape[1],), generator=generator) * 2.0 - 1.0
    return torch.stack([rows.norm(dim=1), rows @ signs.to(rows)], 1).double().cpu()


def _first_difference(first: _Trace, second: _Trace, share: float, tolerance: float) -> str | None:
    """The first module whose outputs differ, given that the network's own do."""
    ends = zip(first.seen[-2:], second.seen[-2:], strict=True)
    differing = [name for (name, a), (_, b) in ends if _differ(a, b, share, tolerance)]
    if not differing:
        return None
    if len(first.seen) == len(second.seen):
        for (name, a), (_, b) in zip(first.seen, second.seen, strict=True):
            if _differ(a, b, share, tolerance):
                return name
    return differing[0]


def _differ(a: Tensor, b: Tensor, share: float, tolerance: float) -> bool:
    """Whether the leading ``share`` of rows is another; other numbers of rows tell nothing."""
    leading = a[: int(len(a) * share)]
    if leading.shape != b.shape:
        return False
    return bool((leading - b).norm() > tolerance * (1e-6 + b[:, 0].norm()))
