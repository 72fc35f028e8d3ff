"""LP-FT (Kumar et al. 2022): fine-tuning that starts at the linear probe's head.

A head that already fits leaves the features little reason to move, which is what distorts them
out of distribution. BatchNorm stays at its stored statistics.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from pipeline.baselines.finetune import Rates, TrainingOptions
from pipeline.baselines.probe import Linear
from pipeline.types import InputError


class LpFtOptions(TrainingOptions):
    """Train every parameter from the pretrained weights and the linear probe's head."""

    kind: Literal["lp_ft"] = "lp_ft"
    learning_rates: Rates = (3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
    """First values of the cosine schedules that are tried."""


def with_probe_head(
    make_module: Callable[[], nn.Module], head: str, probe: Linear
) -> Callable[[], nn.Module]:
    """A factory of the network whose final layer, ``head``, is the probe's affine map."""

    def make() -> nn.Module:
        module = make_module()
        layer = module.get_submodule(head)
        if not isinstance(layer, nn.Linear) or layer.weight.shape != probe.weights.shape:
            raise InputError(
                f"the probe's map {probe.weights.shape} does not fit the head {head!r}: expected a "
                f"Linear layer of that shape, found {layer}."
            )
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(probe.weights))
            layer.bias.copy_(torch.from_numpy(probe.bias))
        return module

    return make
