"""From the name of a kind to a sketch: the one table of kinds."""

from collections.abc import Callable
from typing import Any

from torch import nn

from pipeline.config import Options, validated
from pipeline.sketch import block, full, kronecker, layers, sjlt, stratified, uniform
from pipeline.types import InputError

SKETCH_KINDS: dict[str, tuple[type[Options], Callable[[Any, nn.Module], Any]]] = {
    "uniform": (uniform.UniformOptions, uniform.build),
    "stratified": (stratified.StratifiedOptions, stratified.build),
    "layers": (layers.LayersOptions, layers.build),
    "block": (block.BlockOptions, block.build),
    "kronecker": (kronecker.KroneckerOptions, kronecker.build),
    "sjlt": (sjlt.SjltOptions, sjlt.build),
    "full": (full.FullOptions, full.build),
}
"""Each kind's options model and the function that builds it: a new sketch is one line here."""


def make_sketch(
    kind: str, model: nn.Module, size: int | None = None, seed: int = 0, **options: Any
) -> Any:
    """A sketch of ``model``'s parameters: what is kept of every per-sample gradient.

    ``size`` is the number of columns p; ``options`` are those of the kind's options model. Kinds
    without randomness have no use for ``seed``.
    Raises :class:`InputError` for an unknown kind or option, or a size the model does not have.
    """
    if kind not in SKETCH_KINDS:
        raise InputError(
            f"unknown sketch {kind!r}; known are {', '.join(SKETCH_KINDS)}.", "sketch.kind"
        )
    schema = SKETCH_KINDS[kind][0]
    values = dict(options)
    if size is not None:
        values["size"] = size
    if "seed" in schema.model_fields:
        values["seed"] = seed
    return build_sketch(validated(schema, values, "make_sketch"), model)


def build_sketch(options: Any, model: nn.Module) -> Any:
    """The sketch that a kind's validated options describe."""
    if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
        raise InputError(
            f"a sketch is of a network's parameters, and this {type(model).__name__} has none."
        )
    return SKETCH_KINDS[options.kind][1](options, model)
