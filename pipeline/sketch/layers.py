"""Some layers only: those named, or the last L, as in the papers' top-layers kernels.

The kernel is that of the chosen layers, exactly, or estimated from a uniform sample of their
parameters when a size is given.
"""

import difflib
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from pipeline.config import Options, Seed
from pipeline.sketch.base import (
    ElementSketch,
    ParameterSlot,
    checked_size,
    parameter_count,
    parameter_slots,
)
from pipeline.sketch.stratified import layers_of
from pipeline.sketch.uniform import random_order
from pipeline.types import InputError


class LayersOptions(Options):
    """The parameters of some layers."""

    kind: Literal["layers"] = "layers"
    names: tuple[str, ...] = ()
    """Dotted names of modules (with all they contain) or of single parameters."""
    last: int | None = Field(default=None, gt=0)
    """Or the number of layers to keep from the network's end, the head included."""
    size: int | None = Field(default=None, gt=0)
    """Number of kept parameters, a uniform sample; left out, all of the layers' parameters."""
    seed: Seed = 0
    """Seed of the sample."""

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if bool(self.names) == (self.last is not None):
            raise ValueError("give either names or last")
        return self


def build(options: LayersOptions, model: nn.Module) -> ElementSketch:
    """The parameters of ``model``'s layers that ``options`` name."""
    slots = parameter_slots(model)
    chosen = _last(slots, options.last) if options.last else _named(slots, options.names)
    positions = np.concatenate([np.arange(slot.start, slot.stop) for slot in chosen])
    available = len(positions)
    if options.size is not None:
        size = checked_size(options.size, available, "the choice of layers", "leave it out")
        positions = positions[random_order(available, options.seed)[:size]]
    weight = (available / len(positions)) ** 0.5
    return ElementSketch(
        kind=options.kind,
        seed=options.seed,
        total=parameter_count(model),
        indices=torch.from_numpy(positions),
        column_weights=torch.full((len(positions),), weight, dtype=torch.float64),
        prefix_closed=options.size is not None,
    )


def _last(slots: list[ParameterSlot], count: int) -> list[ParameterSlot]:
    layers = list(layers_of(slots).values())
    if count > len(layers):
        raise InputError(
            f"{count} layers are asked for, the network has {len(layers)}.", "sketch.last"
        )
    return [slot for layer in layers[-count:] for slot in layer]


def _named(slots: list[ParameterSlot], names: tuple[str, ...]) -> list[ParameterSlot]:
    for name in names:
        if not any(_within(slot, name) for slot in slots):
            known = {slot.name for slot in slots} | {slot.layer for slot in slots}
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
            hint = f"Close names: {', '.join(close)}. " if close else ""
            layers = ", ".join(layer for layer in layers_of(slots) if layer)
            raise InputError(
                f"no layer or parameter is named {name!r}. {hint}Layers are {layers}.",
                "sketch.names",
            )
    return [slot for slot in slots if any(_within(slot, name) for name in names)]


def _within(slot: ParameterSlot, name: str) -> bool:
    return slot.name == name or slot.name.startswith(f"{name}.")
