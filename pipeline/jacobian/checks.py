"""Networks whose samples' gradients depend on each other are refused, by the module's name."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.checkpoint import CheckpointFunction

from pipeline.types import InputError, Inputs, run_model, slice_inputs


class NonFiniteSamplesError(InputError):
    """Features of some samples of a batch are NaN or infinite."""

    def __init__(self, samples: Sequence[int], count: int) -> None:
        self.samples = tuple(samples)
        """Their positions in the batch."""
        listed = ", ".join(map(str, self.samples[:8])) + (", …" if len(self.samples) > 8 else "")
        super().__init__(
            f"the features of sample {listed} of this batch of {count} hold NaN or infinity. Look "
            "at these inputs; if they are sound, compute in float32."
        )


def refuse_training_mode(model: nn.Module) -> None:
    """Raise :class:`InputError` for batch statistics and for dropout that is switched on."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise InputError(
                f"{name} is a {type(module).__name__} that normalizes with its batch's statistics: "
                "a sample's gradient would depend on its neighbours. Call model.eval()"
                + ("." if module.training else ", and keep running statistics.")
            )
        if isinstance(module, _DropoutNd) and module.training and module.p > 0:
            raise InputError(f"{name} is an active {type(module).__name__}. Call model.eval().")
        if module.training and float(getattr(module, "dropout", 0.0) or 0.0) > 0 and isinstance(
            module, (nn.MultiheadAttention, nn.RNNBase)
        ):  # fmt: skip
            raise InputError(f"{name} has active dropout. Call model.eval().")


RECOMPUTES = (
    "the network recomputes its activations (torch.utils.checkpoint), and features need them in "
    "one pass. Switch activation checkpointing off."
)


def refuse_recomputation() -> None:
    """Raise :class:`InputError` within a re-entrant checkpoint, which runs without a graph."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is CheckpointFunction.forward.__code__:
            raise InputError(RECOMPUTES)
        frame = frame.f_back


def refuse_batch_dependence(model: nn.Module, inputs: Inputs, tolerance: float) -> None:
    """Compare a sample's outputs alone and beside another one, module by module.

    Raises :class:`InputError` with the first module whose output differs.
    """
    together = _module_outputs(model, slice_inputs(inputs, slice(0, 2)))
    again = _module_outputs(model, slice_inputs(inputs, slice(0, 2)))
    alone = _module_outputs(model, slice_inputs(inputs, slice(0, 1)))
    name = _first_difference(together, again, 1.0, tolerance)
    if name is not None:
        raise InputError(
            f"{name} gives another output when it runs again: the network is random. "
            "Call model.eval(), and switch its noise off."
        )
    name = _first_difference(together, alone, 0.5, tolerance)
    if name is not None:
        raise InputError(
            f"{name} mixes the samples of a batch: a sample's output changes with its neighbours, "
            "so it has no gradient of its own. Replace the module, or switch it to eval mode."
        )


def _module_outputs(model: nn.Module, inputs: Inputs) -> list[tuple[str, Tensor]]:
    """Sum and sum of squares of every tensor output, in the order in which modules end."""
    seen: list[tuple[str, Tensor]] = []

    def hook(name: str) -> Any:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                seen.append((name, output.detach().clone()))

        return note

    leaves = [
        (name, module)
        for name, module in model.named_modules()
        # Scripted modules take no hooks.
        if not any(True for _ in module.children()) and not isinstance(module, ScriptModule)
    ]
    handles = [module.register_forward_hook(hook(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            seen.append((type(model).__name__, run_model(model, inputs)))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _first_difference(
    first: list[tuple[str, Tensor]],
    second: list[tuple[str, Tensor]],
    share: float,
    tolerance: float,
) -> str | None:
    """The first module whose outputs differ, given that the network's own output does."""
    if not _differ(first[-1][1], second[-1][1], share, tolerance):
        return None
    if len(first) == len(second):
        for (name, a), (_, b) in zip(first, second, strict=True):
            if _differ(a, b, share, tolerance):
                return name
    return first[-1][0]


def _differ(a: Tensor, b: Tensor, share: float, tolerance: float) -> bool:
    """Whether the leading ``share`` of ``a`` is not ``b``; other shapes tell nothing."""
    leading = a[: int(len(a) * share)] if a.ndim else a
    if leading.shape != b.shape:
        return False
    return bool((leading - b).norm() > tolerance * (1e-6 + b.norm()))
