"""Which entries of one parameter a sketch keeps, and how to compute just those.

A parameter is seen as ``rows × inner × taps``: (out, in, kernel positions) for a convolution,
taps = 1 for a matrix, inner = taps = 1 for a vector. Per tap the per-sample gradient is a product
``left · rightᵀ`` of (n, rows, T) and (n, inner, T); a selection computes its own entries of it.

| kept set | how |
|---|---|
| everything, or rows × columns (:class:`Block`) | factors cut down, then one product |
| scattered entries (:class:`Scatter`) | sampled product, or dense product and gather |
| L · G · Rᵀ (:class:`Projection`) | factors projected, then one product |
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.jacobian import products

WHOLE_DENSITY = 0.12
"""Kept share of a convolution's weight from which its whole gradient is formed where that is fast.
"""

Add = Callable[[Tensor], None]
"""Takes the values (n, m) of a selection."""


@dataclass(frozen=True, eq=False)
class Block:
    """All pairs of the rows and columns that the factors were cut down to."""

    size: int

    def contract(
        self, left: Float[Tensor, "n r t"], right: Float[Tensor, "n c t"], groups: int = 1
    ) -> Float[Tensor, "n m"]:
        """``left · rightᵀ``, flattened."""
        return products.dense(left, right, groups)


@dataclass(frozen=True, eq=False)
class Scatter:
    """Entries of the product without structure, sorted by row."""

    shape: tuple[int, int]
    rows: Int[Tensor, " m"]
    columns: Int[Tensor, " m"]

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.rows.numel()

    @cached_property
    def flat(self) -> Int[Tensor, " m"]:
        """Positions in the flattened product."""
        return self.rows * self.shape[1] + self.columns

    def pattern_of(self, groups: int) -> products.Pattern:
        """The sampled product's index structure, made on first use."""
        if groups not in self._patterns:
            self._patterns[groups] = products.Pattern.of(
                self.rows, self.columns, self.shape, groups
            )
        return self._patterns[groups]

    @cached_property
    def _patterns(self) -> dict[int, products.Pattern]:
        return {}

    def contract(
        self, left: Float[Tensor, "n r t"], right: Float[Tensor, "n c t"], groups: int = 1
    ) -> Float[Tensor, "n m"]:
        """The kept entries of ``left · rightᵀ``; with groups, columns count within the group."""
        if products.sampling_is_faster(self.size, left, right, groups):
            return products.sampled(self.pattern_of(groups), left, right)
        return products.gathered(self.flat, left, right, groups)


Part = Block | Scatter


def whole_gradient_pays(shape: tuple[int, ...], kept: int, groups: int = 1) -> bool:
    """Whether forming a convolution's whole gradient and gathering from it is fastest on a CPU.

    Measured on one AVX-512 core: 115 to 210 GFLOP/s for 16 to 128 channels in sixteens, where
    products per tap reach 60 to 80; far less for other channel counts, kernels of one tap, or
    more channels.
    """
    if len(shape) < 3 or math.prod(shape[2:]) == 1:
        return False
    channels = (shape[0] // groups, shape[1])
    if any(c % 16 or c > 128 for c in channels):
        return False
    return kept > WHOLE_DENSITY * math.prod(shape)


class Kept:
    """The kept entries of one parameter: by tap, as products compute them, or in its own order.

    ``entries`` are their positions in the flattened parameter, in that order. ``in_order`` is for
    parameters whose whole gradient is formed: sorted positions are gathered from it several times
    faster than tap by tap.
    """

    def __init__(
        self, shape: tuple[int, ...], entries: Int[Tensor, " m"], *, in_order: bool = False
    ) -> None:
        self.shape = shape
        self.rows = shape[0] if shape else 1
        self.inner = shape[1] if len(shape) > 1 else 1
        self.taps = math.prod(shape[2:])
        self.size = entries.numel()
        self.everything = self.size == math.prod(shape)
        self._cut_rows: Tensor | None = None
        self._cut_columns: Tensor | None = None
        self._entry_rows: Tensor | None = None
        ordered = entries.sort().values
        self.parts, self._by_tap = self._split(ordered)
        self.entries = ordered if in_order else self._by_tap
        self._back = torch.argsort(self._by_tap) if in_order and self.taps > 1 else None

    def _split(self, entries: Int[Tensor, " m"]) -> tuple[list[Part | None], Int[Tensor, " m"]]:
        """One part per tap, and the entries tap by tap."""
        tap = entries % self.taps
        pair = entries // self.taps
        order = torch.argsort(tap, stable=True)
        counts = torch.bincount(tap, minlength=self.taps).tolist()
        pairs = pair[order].split(counts)
        if all(torch.equal(pairs[0], other) for other in pairs[1:]) and self._is_block(pairs[0]):
            return [Block(counts[0])] * self.taps, entries[order]
        parts: list[Part | None] = [
            Scatter((self.rows, self.inner), p // self.inner, p % self.inner) if len(p) else None
            for p in pairs
        ]
        return parts, entries[order]

    def _is_block(self, pairs: Int[Tensor, " q"]) -> bool:
        """Whether the pairs are rows × columns; then the factors will be cut to these."""
        rows, columns = torch.unique(pairs // self.inner), torch.unique(pairs % self.inner)
        if len(rows) * len(columns) != len(pairs) or not len(pairs):
            return False
        self._cut_rows = None if len(rows) == self.rows else rows
        self._cut_columns = None if len(columns) == self.inner else columns
        return True

    def from_taps(self, values: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """Values computed tap by tap, in the order of ``entries``."""
        return values if self._back is None else values.index_select(1, self._back)

    @property
    def is_block(self) -> bool:
        """Whether rows and columns can be cut before the product."""
        return isinstance(self.parts[0], Block)

    def cut_rows(self, tensor: Tensor, dim: int) -> Tensor:
        """The left factor's rows that any kept entry needs."""
        return tensor if self._cut_rows is None else tensor.index_select(dim, self._cut_rows)

    def cut_columns(self, tensor: Tensor, dim: int) -> Tensor:
        """The right factor's rows that any kept entry needs."""
        return tensor if self._cut_columns is None else tensor.index_select(dim, self._cut_columns)

    def contract(
        self, left: Float[Tensor, "n r t"], right: Float[Tensor, "n c t"]
    ) -> Float[Tensor, "n m"]:
        """Kept entries of ``left · rightᵀ``, both factors cut, for a parameter of one tap."""
        part = self.parts[0]
        assert self.taps == 1
        assert part is not None
        return part.contract(left, right)

    def channels(self, tensor: Tensor, dim: int) -> Tensor:
        """The kept entries along one axis that runs over the flattened parameter."""
        return (
            tensor if self.everything and self.taps == 1 else tensor.index_select(dim, self.entries)
        )

    def finish(self, values: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """What is kept of gradients whose channels :meth:`channels` chose: they as such."""
        return values

    def with_row_scale(self, scale: Float[Tensor, " rows"], add: Add) -> tuple["Kept", Add]:
        """The same selection, of gradients whose rows must still be multiplied by ``scale``."""
        if self._entry_rows is None:
            self._entry_rows = self.entries // (self.inner * self.taps)
        factors = scale.index_select(0, self._entry_rows)
        return self, lambda values: add(values.mul_(factors))

    def select(self, gradient: Float[Tensor, " n *shape"]) -> Float[Tensor, "n m"]:
        """The kept entries of a whole per-sample gradient."""
        return self.channels(gradient.reshape(len(gradient), -1), 1)

    def lookup(self, ids: Int[Tensor, "n t"], rows: Float[Tensor, "n t d"]) -> Float[Tensor, "n m"]:
        """Kept entries of Σ_t e_{ids[t]} rows[t]ᵀ, the gradient of an embedding."""
        part = self.parts[0]
        if isinstance(part, Scatter):
            return products.scattered_lookup(part.pattern_of(1), ids, rows)
        table = torch.full((self.rows,), -1, device=ids.device)
        wanted = (
            torch.arange(self.rows, device=ids.device) if self._cut_rows is None else self._cut_rows
        )
        table[wanted] = torch.arange(len(wanted), device=ids.device)
        return products.lookup(table[ids], len(wanted), self.cut_columns(rows, 2))

    def to(self, device: torch.device) -> "Kept":
        """The same selection with its index tensors on a device."""
        self.entries, self._by_tap = self.entries.to(device), self._by_tap.to(device)
        self._back = None if self._back is None else self._back.to(device)
        self._cut_rows, self._cut_columns = (
            None if cut is None else cut.to(device) for cut in (self._cut_rows, self._cut_columns)
        )
        self.parts = [
            Scatter(part.shape, part.rows.to(device), part.columns.to(device))
            if isinstance(part, Scatter)
            else part
            for part in self.parts
        ]
        return self

    def scattered(self) -> "Kept":
        """The same entries without the block structure (for grouped convolutions)."""
        if not self.is_block or self.everything:
            return self
        return self._scattered

    @cached_property
    def _scattered(self) -> "Kept":
        kept = Kept.__new__(Kept)
        kept.__dict__.update({k: v for k, v in self.__dict__.items() if k != "_scattered"})
        kept._cut_rows = kept._cut_columns = None
        pairs = (self._by_tap // self.taps).split(self.size // self.taps)
        kept.parts = [
            Scatter((self.rows, self.inner), p // self.inner, p % self.inner) for p in pairs
        ]
        return kept


class Projection:
    """L · G · Rᵀ of one parameter's gradient G, seen as a matrix."""

    is_block = True
    everything = False

    def __init__(self, shape: tuple[int, ...], left: Tensor, right: Tensor) -> None:
        self.shape = shape
        self.rows = shape[0] if shape else 1
        self.inner = shape[1] if len(shape) > 1 else 1
        self.taps = math.prod(shape[2:])
        self.left, self.right = left, right
        self.size = len(left) * len(right)

    def cut_rows(self, tensor: Tensor, dim: int) -> Tensor:
        """The left factor, projected: L times the axis ``dim``."""
        return _apply(self.left, tensor, dim)

    def cut_columns(self, tensor: Tensor, dim: int) -> Tensor:
        """The right factor, projected: R times the axis ``dim`` (for parameters of one tap)."""
        return _apply(self.right, tensor, dim)

    def contract(
        self, left: Float[Tensor, "n a t"], right: Float[Tensor, "n b t"]
    ) -> Float[Tensor, "n m"]:
        """The product of two projected factors."""
        return products.dense(left, right)

    def channels(self, tensor: Tensor, dim: int) -> Tensor:
        """All of them: :meth:`finish` projects."""
        return tensor

    def finish(self, values: Float[Tensor, "n numel"]) -> Float[Tensor, "n m"]:
        """The projection of whole gradients."""
        matrix = values.reshape(len(values), self.rows, -1)
        left, right = self.left.to(values.dtype), self.right.to(values.dtype)
        return (left @ matrix @ right.T).flatten(1)

    def with_row_scale(self, scale: Float[Tensor, " rows"], add: Add) -> tuple["Projection", Add]:
        """The same projection, of gradients whose rows must still be multiplied by ``scale``."""
        return Projection(self.shape, self.left * scale, self.right), add

    def select(self, gradient: Float[Tensor, " n *shape"]) -> Float[Tensor, "n m"]:
        """The projection of whole gradients."""
        return self.finish(gradient.reshape(len(gradient), -1))

    def lookup(self, ids: Int[Tensor, "n t"], rows: Float[Tensor, "n t d"]) -> Float[Tensor, "n m"]:
        """The projection of Σ_t e_{ids[t]} rows[t]ᵀ, the gradient of an embedding."""
        left = self.left.T.to(rows.dtype)[ids]
        return self.contract(left.transpose(1, 2), self.cut_columns(rows, 2).transpose(1, 2))


def _apply(matrix: Tensor, tensor: Tensor, dim: int) -> Tensor:
    return torch.movedim(torch.movedim(tensor, dim, -1) @ matrix.T.to(tensor.dtype), -1, dim)


Selection = Kept | Projection
