"""What one more sample costs, measured by a dry run: for the planner, before any work starts."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from pipeline.types import Inputs, batch_size, run_model

PASSES = 3
"""Forward, backward to the inputs, and products for the parameters: the training step's count."""

COPIES = 4
"""Of every layer's output at the peak: itself, what autograd keeps, its gradient, a layout copy."""


@dataclass(frozen=True)
class SampleCosts:
    """Arithmetic and working memory per sample of a batch."""

    flops: float
    """An upper bound: a sketch needs only part of the parameters' products."""
    bytes: int
    """Beside the feature row itself."""


def shape_costs(model: nn.Module, inputs: Inputs) -> SampleCosts:
    """The costs of one sample from shapes alone: nothing is computed or allocated.

    A forward pass of a copy on tensors without numbers; raises whatever a model does that needs
    the numbers, or does not fit its inputs.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        if isinstance(inputs, Tensor):
            shapes: Inputs = mode.from_tensor(inputs)
        else:
            shapes = {name: mode.from_tensor(tensor) for name, tensor in inputs.items()}
        # Modules may keep tensors between calls: a copy is run, on tensors that the memo replaces.
        tensors = [*model.parameters(), *model.buffers()]
        bare = copy.deepcopy(model, {id(tensor): mode.from_tensor(tensor) for tensor in tensors})
        return sample_costs(bare, shapes)


def sample_costs(model: nn.Module, inputs: Inputs) -> SampleCosts:
    """The costs of one sample, from one forward pass of a small batch."""
    outputs = 0

    def count(module: nn.Module, args: object, output: object) -> None:
        nonlocal outputs
        if isinstance(output, Tensor) and not any(module.children()):
            outputs += output.numel() * output.element_size()

    handles = [module.register_forward_hook(count) for module in model.modules()]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run_model(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    n = batch_size(inputs)
    return SampleCosts(
        flops=PASSES * counter.get_total_flops() / n, bytes=max(1, COPIES * outputs // n)
    )
