"""K = ΦΦᵀ from features, never formed: panel by panel of their columns, Φᵀu and then Φ(Φᵀu).

Each worker holds some rows of Φ. A product sends p×k numbers around, the all-reduced Φᵀu; a strip's
share of it is used at once, so that each feature is read and converted once a product.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.group import Alone, Group, heights_of
from pipeline.solvers.operator import Array, as_tensor, tile_rows

PANEL_COLUMNS = 8192
"""Columns at a time of features in memory."""


class Panels(Protocol):
    """Features by column panels, read anew at every pass."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows h and columns p."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the panels lie."""
        ...

    def __iter__(self) -> Iterator[Float[Tensor, "h w"]]:
        """All columns in order, float32 or float64; a panel is valid until the next one."""
        ...


class FeatureKernel:
    """K of the features ``scale`` · Φ, of which this worker holds the rows ``parts[group.rank]``.

    ``scale`` is one factor, or one for each row held here (h, 1).
    """

    def __init__(
        self,
        phi: Array | Panels,
        parts: Sequence[slice] = (),
        group: Group | None = None,
        *,
        scale: float | Float[Tensor, "h 1"] = 1.0,
    ) -> None:
        self.panels = as_panels(phi)
        self.group = group or Alone()
        held = self.panels.shape[0]
        self._heights = heights_of(parts) if parts else [held]
        self.rows = parts[self.group.rank] if parts else slice(0, held)
        self.n = sum(self._heights)
        self.device = self.panels.device
        self.scale = scale
        # The product is formed in float64: the rounding of ΦΦᵀ, not of Φ, counts.
        self.error = float(torch.finfo(torch.float64).eps)
        self.products = 0
        self.sent = 0

    def matvec(self, V: Float[Tensor, "h k"]) -> Float[Tensor, "h k"]:
        """Φ(ΦᵀV) for the own rows, in float64, in one pass over the features."""
        self.products += V.shape[1]
        before = self.group.sent
        scaled = (self.scale * V).T.contiguous()
        out = torch.zeros_like(scaled)
        for strip in float64_strips(self.panels):
            out.addmm_(self.group.sum(scaled @ strip), strip.T)
        self.sent += self.group.sent - before
        return self.scale * out.T

    def inner(self, U: Float[Tensor, "h a"], V: Float[Tensor, "h b"]) -> Float[Tensor, "a b"]:
        """UᵀV over all rows, in float64."""
        return self.group.sum(U.T @ V)

    def diagonal(self) -> Float[Tensor, " h"]:
        """Squared norms of the own feature rows, float64: one pass over them."""
        norms = torch.zeros((self.panels.shape[0], 1), dtype=torch.float64, device=self.device)
        for strip in float64_strips(self.panels):
            norms += strip.square().sum(dim=1, keepdim=True)
        return (self.scale * self.scale * norms)[:, 0]

    def gather(self, V: Float[Tensor, "h k"]) -> Float[Tensor, "n k"]:
        """V of all workers."""
        return self.group.gather(V, self._heights)


class FeatureCross:
    """Other rows' kernel with the training rows, Φ′Φᵀ, never formed.

    ``panels`` hold the own training rows, ``held`` of them, above the own share of the other rows;
    ``scale`` multiplies them, one factor or one for each row.
    """

    def __init__(
        self,
        panels: Panels,
        held: int,
        parts: Sequence[slice],
        group: Group | None = None,
        *,
        scale: float | Float[Tensor, "h 1"] = 1.0,
    ) -> None:
        self.panels = panels
        self.group = group or Alone()
        self.m = parts[-1].stop
        self._held = held
        self._heights = heights_of(parts)
        self._scale = torch.as_tensor(scale, device=panels.device).expand(panels.shape[0], 1)

    def matvec(self, V: Float[Tensor, "h k"]) -> Float[Tensor, "m k"]:
        """Φ′(ΦᵀV) of all other rows, on every worker, in float64."""
        scaled = (self._scale[: self._held] * V).T.contiguous()
        own = V.new_zeros((V.shape[1], self._heights[self.group.rank]))
        for strip in float64_strips(self.panels):
            theta = self.group.sum(scaled @ strip[: self._held])
            own.addmm_(theta, strip[self._held :].T)
        return self.group.gather(self._scale[self._held :] * own.T, self._heights)


class ColumnPanels:
    """Features in memory as panels."""

    def __init__(self, phi: Float[Tensor, "h p"], width: int = PANEL_COLUMNS) -> None:
        self._phi = phi
        self._width = width
        self.shape = (phi.shape[0], phi.shape[1])
        self.device = phi.device

    def __iter__(self) -> Iterator[Float[Tensor, "h w"]]:
        return iter(self._phi.split(self._width, dim=1))


def as_panels(phi: Array | Panels) -> Panels:
    """The panels themselves, or an array made into them."""
    return ColumnPanels(as_tensor(phi)) if isinstance(phi, Array) else phi


def float64_strips(panels: Panels) -> Iterator[Float[Tensor, "h w"]]:
    """All columns in order, in float64, a few at a time: each is multiplied twice, from the cache.

    A strip is valid until the next one is asked for.
    """
    height = panels.shape[0]
    width = tile_rows(height, panels.device)
    buffer = torch.empty((height, width), dtype=torch.float64, device=panels.device)
    for panel in panels:
        for part in panel.split(width, dim=1):
            if part.dtype == torch.float64:
                yield part
            else:
                yield buffer[:, : part.shape[1]].copy_(part)
