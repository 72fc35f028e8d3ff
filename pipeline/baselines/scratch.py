"""Training from scratch: the same architecture and recipe, without the pretrained weights."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from pipeline.baselines.finetune import TrainingOptions
from pipeline.data.preprocess import PreprocessOptions
from pipeline.types import InputError


class ScratchOptions(TrainingOptions):
    """Train every parameter from random weights."""

    kind: Literal["scratch"] = "scratch"
    preprocess: PreprocessOptions | None = None
    """Its own, where the benchmark's belongs to the pretrained weights (bytes without division, for
    one): an untrained network wants pixels of deviation one."""


def untrained(make_module: Callable[[], nn.Module], seed: int) -> Callable[[], nn.Module]:
    """A factory of the same network with weights drawn anew, by each layer's own rule.

    Where a network has a rule of its own (``reset_parameters``), it has the last word.
    Refuses networks with parameters that no layer knows how to draw, naming them: left at their
    pretrained values they would make "from scratch" a lie.
    """

    def make() -> nn.Module:
        module = make_module()
        drawn: set[int] = set()
        # Layers draw from the global generator; the fork leaves the caller's as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer in sorted(module.modules(), key=_parts):  # the whole after its parts
                reset = getattr(layer, "reset_parameters", None)
                if callable(reset):
                    reset()
                    drawn.update(id(p) for p in layer.parameters(recurse=False))
        kept = [name for name, p in module.named_parameters() if id(p) not in drawn]
        if kept:
            raise InputError(
                f"training from scratch cannot draw {', '.join(kept[:3])} anew"
                f"{f' and {len(kept) - 3} more' if len(kept) > 3 else ''}: their layers have no "
                "reset_parameters. Give these layers one, or leave 'scratch' out of baselines.",
                "baselines",
            )
        return module

    return make


def _parts(module: nn.Module) -> int:
    return sum(1 for _ in module.modules())
