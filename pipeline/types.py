"""The names that every room shares: the dimension legend and the one error users cause.

Dimension legend of shape annotations (jaxtyping):

| letter | counts |
|---|---|
| ``n`` | samples; training rows of a kernel |
| ``m`` | other samples: validation or test rows |
| ``p`` | kept parameters: columns of the features |
| ``P`` | all parameters of the network |
| ``k`` | outputs of the network, or targets of a regression |
| ``h`` | width of the penultimate layer |
| ``r`` | ridges of a path |
"""

from collections.abc import Callable, Mapping

import torch

Inputs = torch.Tensor | Mapping[str, torch.Tensor]
"""One batch as a network takes it: ``model(x)`` for a tensor, ``model(**x)`` for a mapping."""


class InputError(ValueError):
    """A mistake of the caller's: the message says what was expected, what was found, what to do.

    The command line prints it without a traceback and exits with code 2; anything else is a bug.
    ``where`` is the config path of the cause (``sketch.size``), when there is one.
    """

    def __init__(self, message: str, where: str | None = None) -> None:
        self.where = where
        super().__init__(f"{where}: {message}" if where else message)


class MissingExtraError(InputError, ImportError):
    """An optional library is needed and not installed."""

    def __init__(self, library: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs {library}, which is not installed. "
            f"Install it with: pip install 'entk-pipeline[{extra}]'"
        )


def logits_of(result: object) -> torch.Tensor:
    """The tensor in a network's result: itself, its ``logits``, or the first of a tuple."""
    if isinstance(result, torch.Tensor):
        return result
    logits = getattr(result, "logits", None)
    if isinstance(logits, torch.Tensor):
        return logits
    if isinstance(result, (tuple, list)) and result and isinstance(result[0], torch.Tensor):
        return result[0]
    raise InputError(
        f"the network returns a {type(result).__name__}; expected a tensor of logits (n, k), or an "
        "object with .logits. Wrap the network to return its logits."
    )


def run_model(model: Callable[..., object], inputs: Inputs) -> torch.Tensor:
    """A network's logits on one batch."""
    return logits_of(model(inputs) if isinstance(inputs, torch.Tensor) else model(**inputs))


def batch_size(inputs: Inputs) -> int:
    """Number of samples in a batch: the length of the (first) tensor's first axis."""
    if isinstance(inputs, torch.Tensor):
        return inputs.shape[0]
    if not isinstance(inputs, Mapping) or not inputs:
        raise InputError(
            "expected samples as a tensor (n, …) or a mapping from argument names to tensors; got "
            f"{type(inputs).__name__}."
        )
    return next(iter(inputs.values())).shape[0]


def slice_inputs(inputs: Inputs, rows: slice) -> Inputs:
    """The same batch, restricted to some of its rows."""
    if isinstance(inputs, torch.Tensor):
        return inputs[rows]
    return {name: tensor[rows] for name, tensor in inputs.items()}


def move_inputs(inputs: Inputs, device: torch.device, dtype: torch.dtype | None = None) -> Inputs:
    """The batch on a device; floating-point tensors also in ``dtype``, integer ones as they are."""

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        return tensor.to(device=device, dtype=target, non_blocking=True)

    if isinstance(inputs, torch.Tensor):
        return moved(inputs)
    return {name: moved(tensor) for name, tensor in inputs.items()}
