"""What the feature engine asks of a sketch: one of three duck-typed forms.

Every parameter is seen as a matrix: ``(shape[0], numel / shape[0])`` from two dimensions up, such
as (out, in · kh · kw) for a convolution, and ``(numel, 1)`` below. Entries are counted row by row,
as in ``parameter.flatten()``. Names are those of ``model.named_parameters()``, so a tied weight has
one name and one place. Engines compute raw derivatives; column weights stay with the sketch.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class ElementSketch(Protocol):
    """Entries of the gradient: uniform, stratified, layers, block and full sketches.

    The engine recognises, per parameter, a kept set that is everything, a product of rows and
    columns (``block``: the factors are cut down before they are multiplied), or scattered entries.
    For convolutions a block of output channels × input channels, all kernel positions of each pair,
    is the cheapest.
    """

    @property
    def indices(self) -> Int[Tensor, " p"]:
        """Positions in the concatenation of ``model.named_parameters()``; column j is the
        derivative by parameter ``indices[j]``. In any order."""
        ...


@runtime_checkable
class KroneckerSketch(Protocol):
    """Both factors of each gradient projected before their product (LoGra): L · G · Rᵀ."""

    @property
    def size(self) -> int:
        """Number of columns p."""
        ...

    @property
    def offsets(self) -> Mapping[str, int]:
        """First column of each parameter in the sketch; parameters not named are left out."""
        ...

    def factors(self, name: str) -> tuple[Float[Tensor, "a rows"], Float[Tensor, "b columns"]]:
        """L and R of one parameter; its entry (i, j) of L · G · Rᵀ is column offset + i · b + j.

        Asked once, when the plan is made. Below two dimensions the gradient is (numel, 1), and R is
        usually [[1]].
        """
        ...


@runtime_checkable
class StreamedSketch(Protocol):
    """A linear map of the whole gradient, fed panel by panel: sjlt."""

    @property
    def size(self) -> int:
        """Number of columns p."""
        ...

    def accumulate(
        self, name: str, start: int, gradient: Float[Tensor, "n w"], out: Float[Tensor, "n p"]
    ) -> None:
        """Add the image of entries ``start … start + w`` of a flattened parameter to ``out``.

        Called for panels that cover each parameter once per use of it in the network, in any order
        of parameters, on the model's device; gradients of several uses add up by linearity.
        """
        ...


Sketch = ElementSketch | KroneckerSketch | StreamedSketch


def positions(model: torch.nn.Module) -> dict[str, slice]:
    """Each parameter's place in the concatenation of ``model.named_parameters()``."""
    places, start = {}, 0
    for name, parameter in model.named_parameters():
        places[name] = slice(start, start + parameter.numel())
        start += parameter.numel()
    return places
