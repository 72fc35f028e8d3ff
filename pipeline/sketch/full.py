"""All parameters, in their own order: the kernel itself, nothing estimated."""

from typing import Literal

import torch
from torch import nn

from pipeline.config import Options
from pipeline.sketch.base import ElementSketch, parameter_count


class FullOptions(Options):
    """Every parameter of the network."""

    kind: Literal["full"] = "full"


def build(options: FullOptions, model: nn.Module) -> ElementSketch:
    """Every parameter of ``model``, with weight 1."""
    total = parameter_count(model)
    return ElementSketch(
        kind=options.kind,
        seed=0,
        total=total,
        indices=torch.arange(total),
        column_weights=torch.ones(total, dtype=torch.float64),
        prefix_closed=False,
    )
