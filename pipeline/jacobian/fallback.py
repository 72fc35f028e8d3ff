"""Per-sample gradients of a few parameters by ``torch.func``, where no rule covers their use."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.types import Inputs, batch_size, logits_of, run_model, slice_inputs

logger = logging.getLogger(__name__)

Scalars = Callable[[Tensor], Tensor]
"""From logits (n, …) to the differentiated scalars (n, q)."""


def fallback_gradients(
    model: nn.Module, names: list[str], inputs: Inputs, scalars: Scalars
) -> dict[str, Tensor]:
    """By name, gradients (q, n, *shape) of every scalar of every sample."""
    parameters = dict(model.named_parameters())
    chosen = {name: parameters[name].detach() for name in names}

    def of_sample(values: dict[str, Tensor], sample: Inputs) -> Tensor:
        alone = _mapped(sample, lambda tensor: tensor.unsqueeze(0))
        args, kwargs = ((alone,), {}) if isinstance(alone, Tensor) else ((), dict(alone))
        result = torch.func.functional_call(model, values, args, kwargs)
        return scalars(logits_of(result))[0]

    try:
        jacobian = torch.func.vmap(torch.func.jacrev(of_sample), in_dims=(None, 0))
        found = jacobian(chosen, inputs)
        return {name: gradient.detach().movedim(1, 0) for name, gradient in found.items()}
    except (RuntimeError, ValueError, TypeError) as error:
        # Control flow that depends on values, or an operation without a batching rule.
        logger.debug("vmap does not run this network (%s): one sample at a time", error)
        return _one_by_one(model, names, inputs, scalars)


def _one_by_one(
    model: nn.Module, names: list[str], inputs: Inputs, scalars: Scalars
) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    chosen = [parameters[name] for name in names]
    rows: list[list[list[Tensor]]] = []
    with requiring_grad(chosen):
        for i in range(batch_size(inputs)):
            values = scalars(run_model(model, slice_inputs(inputs, slice(i, i + 1))))[0]
            rows.append([gradients_of(value, chosen) for value in values])
    return {
        name: torch.stack([torch.stack([row[q][j] for row in rows]) for q in range(len(rows[0]))])
        for j, name in enumerate(names)
    }


def gradients_of(value: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Plain dense gradients of one scalar; zeros where it does not depend on a parameter."""
    if not value.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient.to_dense()
        for gradient, parameter in zip(found, parameters, strict=True)
    ]


class requiring_grad:  # noqa: N801  (used like torch.no_grad)
    """Inside, exactly these of the model's frozen parameters require gradients."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self._parameters = parameters

    def __enter__(self) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(True)

    def __exit__(self, *exception: object) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(False)


def _mapped(inputs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    if isinstance(inputs, Tensor):
        return function(inputs)
    return {name: function(tensor) for name, tensor in inputs.items()}
