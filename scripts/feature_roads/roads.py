"""Roads to the per-sample gradients of a batch, and what no road can do without."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.types import Inputs, batch_size, slice_inputs


def logits(model: nn.Module, inputs: Inputs) -> Tensor:
    result = model(inputs) if isinstance(inputs, Tensor) else model(**inputs)
    return getattr(result, "logits", result)


def forward(model: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        return logits(model, inputs)


def to_input(model: nn.Module, inputs: Inputs) -> None:
    """Forward, and backward through every layer without weight gradients."""
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        if isinstance(inputs, Tensor):
            leaf = inputs.detach().requires_grad_()
            torch.autograd.grad(logits(model, leaf).sum(), leaf)
        else:
            table = model.get_input_embeddings().weight.requires_grad_()
            torch.autograd.grad(logits(model, inputs).sum(), table)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def train_step(model: nn.Module, inputs: Inputs) -> None:
    """All parameters' summed gradients, set anew."""
    model.zero_grad(set_to_none=True)
    logits(model, inputs).sum().backward()
    model.zero_grad(set_to_none=True)


def as_call(
    tensors: list[Tensor], names: list[str]
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Arguments of a call: by name where there are names."""
    return ((), dict(zip(names, tensors, strict=True))) if names else (tuple(tensors), {})


def vmap_grad(model: nn.Module, inputs: Inputs, indices: Tensor) -> Tensor:
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    names = [] if isinstance(inputs, Tensor) else list(inputs)

    def of_sample(values: dict[str, Tensor], sample: Inputs) -> Tensor:
        tensors = [sample] if isinstance(sample, Tensor) else list(sample.values())
        args, kwargs = as_call([tensor[None] for tensor in tensors], names)
        result = torch.func.functional_call(model, values, args, kwargs)
        return getattr(result, "logits", result)[0, 0]

    gradients = torch.func.vmap(torch.func.grad(of_sample), in_dims=(None, 0))(parameters, inputs)
    flat = torch.cat([gradient.flatten(1) for gradient in gradients.values()], 1)
    return flat.index_select(1, indices)


def loop(model: nn.Module, inputs: Inputs, indices: Tensor) -> Tensor:
    rows = []
    for i in range(batch_size(inputs)):
        model.zero_grad(set_to_none=True)
        logits(model, slice_inputs(inputs, slice(i, i + 1)))[0, 0].backward()
        flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        rows.append(flat[indices.clamp(max=len(flat) - 1)])
    model.zero_grad(set_to_none=True)
    return torch.stack(rows)


def trak(
    model: nn.Module, inputs: Inputs, indices: Tensor, *, projected: bool = False
) -> Callable[[], Tensor]:
    """TRAK's default gradient computer, and the gather in place of a projection.

    With ``projected`` all that ``TRAKer.featurize`` does with its defaults on a CPU: gradients, and
    their product with a dense random matrix of 2,048 columns, drawn again for every batch.
    """
    from trak.gradient_computers import FunctionalGradientComputer
    from trak.modelout_functions import AbstractModelOutput
    from trak.projectors import BasicProjector, ProjectionType
    from trak.utils import vectorize

    class FirstLogit(AbstractModelOutput):
        def __init__(self) -> None:
            pass

        @staticmethod
        def get_output(
            net: nn.Module, weights: dict[str, Tensor], buffers: dict[str, Tensor], *sample: Tensor
        ) -> Tensor:
            args, kwargs = as_call([tensor[None] for tensor in sample], names)
            result = torch.func.functional_call(net, (weights, buffers), args, kwargs)
            return getattr(result, "logits", result)[0, 0]

        def get_out_to_loss_grad(self, *_: Any) -> None:
            return None

    names = [] if isinstance(inputs, Tensor) else list(inputs)
    batch = [inputs] if isinstance(inputs, Tensor) else list(inputs.values())
    size, device = sum(parameter.numel() for parameter in model.parameters()), indices.device
    computer = FunctionalGradientComputer(model, FirstLogit(), size, torch.float32, device)
    if projected:
        kind = ProjectionType.rademacher
        # Made when it is run: for 110 million parameters one block of its matrix takes 44 GB.
        projector = functools.cache(
            lambda: BasicProjector(size, 2048, 0, kind, device, dtype=torch.float32)
        )
        return lambda: projector().project(computer.compute_per_sample_grad(batch), 0)

    def run() -> Tensor:
        whole = vectorize(computer.compute_per_sample_grad(batch), device=str(device))
        return whole.index_select(1, indices)

    return run


def opacus(model: nn.Module, inputs: Inputs, indices: Tensor) -> Callable[[], Tensor]:
    """Opacus's per-sample hooks, and the gather; it refuses BatchNorm and bare parameters.

    Its hooks look at modules in training mode alone; dropout has rate 0 in these networks.
    """
    from opacus import GradSampleModule

    def run() -> Tensor:
        wrapped = GradSampleModule(model, strict=True)
        wrapped.train()
        try:
            logits(wrapped, inputs).sum().backward()
            parts = [p.grad_sample.flatten(1) for p in model.parameters()]
            return torch.cat(parts, 1).index_select(1, indices)
        finally:
            wrapped.to_standard_module()
            model.zero_grad(set_to_none=True)
            model.eval()

    return run


def rivals(model: nn.Module, inputs: Inputs, indices: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Other roads to the same columns, as far as their packages are installed.

    transformers looks at the values of a mask, which ``vmap`` refuses. Every token counts in these
    batches, so roads through ``vmap`` go without it.
    """
    unmasked = inputs
    if not isinstance(inputs, Tensor):
        unmasked = {name: x for name, x in inputs.items() if name != "attention_mask"}
    found: dict[str, Callable[[], Tensor]] = {
        "vmap_grad": lambda: vmap_grad(model, unmasked, indices),
        "loop": lambda: loop(model, inputs, indices),
    }
    if importlib.util.find_spec("trak"):
        found["trak"] = trak(model, unmasked, indices)
        found["trak_projected"] = trak(model, unmasked, indices, projected=True)
    if importlib.util.find_spec("opacus"):
        found["opacus"] = opacus(model, inputs, indices)
    return found
