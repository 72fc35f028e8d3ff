"""What the engine refuses before it starts: no network, no batch, training mode, checkpoints."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.checkpoint import CheckpointFunction

from pipeline.types import InputError


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


def refuse_no_network(model: object) -> None:
    """Raise :class:`InputError` for what is no module, or has no weights yet."""
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a network, an nn.Module; found a {type(model).__name__}.")
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise InputError(f"{name} lies on the meta device and has no values. Load the weights.")
        if parameter.is_inference():
            raise InputError(
                f"{name} was made in torch.inference_mode(), which forbids derivatives for good. "
                "Make or load the network outside of it."
            )


def refuse_no_batch(inputs: object) -> None:
    """Raise :class:`InputError` unless this is a tensor (n, …), or a mapping of them; n ≥ 1."""
    tensors: Mapping[str, Any] = inputs if isinstance(inputs, Mapping) else {"inputs": inputs}
    wrong = [
        f"{name}: {'a number' if isinstance(value, Tensor) else type(value).__name__}"
        for name, value in tensors.items()
        if not isinstance(value, Tensor) or value.ndim == 0
    ]
    if wrong or not tensors:
        raise InputError(
            "expected one batch, a tensor (n, …) or a mapping from argument names to such tensors; "
            f"found {', '.join(wrong) or 'an empty mapping'}."
        )
    counts = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} of {count}" for name, count in counts.items())
        raise InputError(f"expected tensors of the same n samples, found {listed}.")
    if 0 in counts.values():
        raise InputError("expected at least one sample, got an empty batch.")


def refuse_training_mode(model: nn.Module) -> None:
    """Raise :class:`InputError` for batch statistics and for dropout that is switched on."""
    for place, module in model.named_modules():
        kind = type(module).__name__
        name = place or "the network"
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise InputError(
                f"{name} is a {kind} that normalizes with its batch's statistics: "
                "a sample's gradient would depend on its neighbours. Call model.eval()"
                + ("." if module.training else ", and keep running statistics.")
            )
        if not module.training:
            continue
        if isinstance(module, _DropoutNd) and module.p > 0:
            raise InputError(f"{name} is an active {kind}. Call model.eval().")
        if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)) and module.dropout > 0:
            raise InputError(f"{name} is a {kind} with active dropout. Call model.eval().")


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
