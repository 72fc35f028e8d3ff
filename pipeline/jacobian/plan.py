"""Where each parameter's columns go: made once from the model and the sketch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.jacobian.contract import ElementSketch, KroneckerSketch, StreamedSketch
from pipeline.jacobian.selection import Kept, Projection, Selection, whole_gradient_pays
from pipeline.types import InputError

PANEL_ENTRIES = 1 << 20
"""Entries of a parameter that a streamed sketch is fed at a time."""

Feed = Callable[[Float[Tensor, "n p"], Float[Tensor, "n m"]], None]
"""Adds one selection's image under a streamed sketch to the features."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One selection of one parameter, and what becomes of its values: columns, or fed on."""

    keep: Selection
    start: int = 0
    """First of its columns in the buffer."""
    feed: Feed | None = None

    def put(self, out: Float[Tensor, "n q"], values: Float[Tensor, "n m"], first: bool) -> None:
        """Write values where they belong, or add them to those of earlier uses."""
        if self.feed is not None:
            self.feed(out, values)
            return
        columns = out[:, self.start : self.start + self.keep.size]
        if first:
            columns.copy_(values)
        else:
            columns += values


@dataclass(frozen=True, eq=False)
class Plan:
    """Pieces by parameter name, and the last step from computed columns to the sketch's order."""

    pieces: dict[str, list[Piece]]
    columns: int
    """Columns of the buffer that pieces write to."""
    order: Tensor | None = None
    """The buffer's column for each of the sketch's columns; None: the same."""


def make_plan(model: nn.Module, sketch: Any, device: torch.device) -> Plan:
    """The plan for a sketch of any of the three forms, or for all parameters when it is None."""
    parameters = dict(model.named_parameters())
    if not parameters:
        raise InputError(f"{type(model).__name__} has no parameters, hence no Jacobian.")
    total = sum(parameter.numel() for parameter in parameters.values())
    made_for = getattr(sketch, "total", total)
    if made_for != total:
        raise InputError(
            f"the sketch was made for a network of {made_for:,} parameters, this one has "
            f"{total:,}. Make it for this network."
        )
    if sketch is None:
        return _element_plan(parameters, torch.arange(total), device)
    if isinstance(sketch, ElementSketch) and not isinstance(sketch, Tensor):
        return _element_plan(parameters, torch.as_tensor(sketch.indices).cpu(), device)
    if isinstance(sketch, KroneckerSketch):
        return _kronecker_plan(parameters, sketch, device)
    if isinstance(sketch, StreamedSketch):
        return _streamed_plan(parameters, sketch, device)
    raise InputError(
        f"a {type(sketch).__name__} is no sketch: make one with make_sketch(kind, model, size), or "
        "pass an object with .indices, .factors(name) or .accumulate(name, start, gradient, out)."
    )


def _element_plan(parameters: dict[str, nn.Parameter], indices: Tensor, device: Any) -> Plan:
    positions, inverse = torch.unique(indices, return_inverse=True)
    total = sum(parameter.numel() for parameter in parameters.values())
    if not len(positions) or positions[0] < 0 or positions[-1] >= total:
        raise InputError(
            f"the sketch's indices must lie in 0 … {total - 1} (the network's parameters). "
            "Make the sketch for this network."
        )
    pieces: dict[str, list[Piece]] = {}
    emitted: list[Tensor] = []
    start = column = 0
    for name, parameter in parameters.items():
        first, last = torch.searchsorted(
            positions, torch.tensor([start, start + parameter.numel()])
        )
        if last > first:
            kept = _kept(parameter, positions[first:last] - start, device)
            emitted.append(kept.entries + start)
            pieces[name] = [Piece(kept.to(device), column)]
            column += kept.size
        start += parameter.numel()
    order = torch.argsort(torch.cat(emitted))[inverse]
    same = torch.equal(order, torch.arange(column))
    return Plan(pieces, column, None if same else order.to(device))


def _kept(parameter: Tensor, entries: Tensor, device: torch.device) -> Kept:
    shape = tuple(parameter.shape)
    in_order = device.type == "cpu" and whole_gradient_pays(shape, entries.numel())
    return Kept(shape, entries, in_order=in_order)


def _kronecker_plan(
    parameters: dict[str, nn.Parameter], sketch: KroneckerSketch, device: Any
) -> Plan:
    pieces = {}
    for name, offset in sketch.offsets.items():
        left, right = (factor.to(device) for factor in sketch.factors(name))
        keep = Projection(tuple(parameters[name].shape), left, right)
        pieces[name] = [Piece(keep, offset)]
    return Plan(pieces, sketch.size)


def _streamed_plan(
    parameters: dict[str, nn.Parameter], sketch: StreamedSketch, device: Any
) -> Plan:
    pieces = {}
    for name, parameter in parameters.items():
        width = parameter[0].numel() if parameter.ndim > 1 else 1
        step = max(1, PANEL_ENTRIES // width) * width
        pieces[name] = [
            _panel(sketch, name, parameter, start, min(start + step, parameter.numel()), device)
            for start in range(0, parameter.numel(), step)
        ]
    return Plan(pieces, sketch.size)


def _panel(
    sketch: StreamedSketch, name: str, parameter: Tensor, start: int, stop: int, device: Any
) -> Piece:
    """Whole rows of one parameter, brought back from tap order to the parameter's."""
    entries = torch.arange(start, stop)
    kept = _kept(parameter, entries, device)
    in_order = torch.equal(kept.entries, entries)
    back = None if in_order else torch.argsort(kept.entries).to(device)

    def feed(out: Tensor, values: Tensor) -> None:
        ordered = values if back is None else values.index_select(1, back)
        sketch.accumulate(name, start, ordered.to(out.dtype), out)

    return Piece(kept.to(device), feed=feed)
