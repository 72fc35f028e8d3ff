"""Where features come from: a store, an array, several of them stacked, some of their rows."""

import itertools
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pipeline.types import InputError

PANEL_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""Types that panels keep; all others are read as float32."""


@runtime_checkable
class PanelSource(Protocol):
    """Features that are read by column ranges; the feature store is one, an array another."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows n and columns p."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values that ``read`` gives: float16, bfloat16 or float32."""
        ...

    def read(self, columns: slice, out: Tensor, rows: slice = slice(None)) -> None:
        """Fill ``out`` (rows, columns), of type ``dtype``, with stored values."""
        ...

    def weights(self) -> np.ndarray:
        """What each column is multiplied with in the kernel, float64 (p,)."""
        ...


class ArraySource:
    """An array or tensor in memory as a panel source; float64 is read as float32.

    A tensor in a GPU's memory stays there: ``read`` brings over only what is asked for.
    """

    def __init__(self, array: Any, weights: Any = None) -> None:
        # No copy, and no warning about arrays that cannot be written: they are only read.
        values = array.detach() if isinstance(array, Tensor) else np.asarray(array)
        floating = "float" in str(values.dtype)
        if values.ndim != 2 or not floating:
            raise InputError(
                f"features must be floating-point numbers of shape (n, p), got {values.dtype} of "
                f"shape {tuple(values.shape)}."
            )
        self._values = values
        self._weights = weights

    @property
    def shape(self) -> tuple[int, int]:
        """Rows n and columns p."""
        n, p = self._values.shape
        return n, p

    @property
    def dtype(self) -> torch.dtype:
        """Type of the panels."""
        own = str(self._values.dtype).removeprefix("torch.")
        return PANEL_DTYPES.get(own, torch.float32)

    def read(self, columns: slice, out: Tensor, rows: slice = slice(None)) -> None:
        """Copy a column range into ``out``."""
        values = self._values[rows, columns]
        if isinstance(values, Tensor):
            values = _plain(values.cpu())
        # NumPy copies: torch would start threads of its own beside the arithmetic's.
        np.copyto(_plain(out), values, casting="same_kind")

    def weights(self) -> np.ndarray:
        """Given weights, or ones."""
        return np.ones(self.shape[1]) if self._weights is None else np.asarray(self._weights)


def _plain(tensor: Tensor) -> np.ndarray:
    """A CPU tensor's memory as NumPy knows it (bfloat16 as 16-bit integers)."""
    known = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    array: np.ndarray = known.numpy()
    return array


class StackedSource:
    """Several sources with the same columns, one under the other: read once, multiplied together.

    Each keeps its own weights, since every store has a scale of its own.
    """

    def __init__(self, sources: Sequence[PanelSource]) -> None:
        first = sources[0]
        for source in sources:
            if source.shape[1] != first.shape[1] or source.dtype != first.dtype:
                raise InputError(
                    f"features of {source.shape[1]} columns in {source.dtype} and of "
                    f"{first.shape[1]} in {first.dtype} cannot be multiplied: "
                    "use the same sketch and dtype for both."
                )
        if any(0 in source.shape for source in sources):
            raise InputError("a kernel needs at least one row and one column of features.")
        self.sources = list(sources)
        edges = np.cumsum([0, *(source.shape[0] for source in sources)]).tolist()
        self.row_ranges = [slice(a, b) for a, b in itertools.pairwise(edges)]
        self.shape = (edges[-1], first.shape[1])
        self.dtype = first.dtype

    def read(self, columns: slice, out: Tensor) -> None:
        """Fill ``out`` with a column range of all sources."""
        for source, rows in zip(self.sources, self.row_ranges, strict=True):
            source.read(columns, out[rows])


class RowRange:
    """Some rows of a source, as a source."""

    def __init__(self, source: PanelSource, rows: slice) -> None:
        start, stop, _ = rows.indices(source.shape[0])
        self._source = source
        self._start = start
        self.shape = (stop - start, source.shape[1])
        self.dtype = source.dtype

    def read(self, columns: slice, out: Tensor, rows: slice = slice(None)) -> None:
        """Fill ``out`` with a column range of these rows."""
        start, stop, _ = rows.indices(self.shape[0])
        self._source.read(columns, out, slice(self._start + start, self._start + stop))

    def weights(self) -> np.ndarray:
        """The source's weights."""
        return self._source.weights()


def as_source(features: Any, weights: Any = None) -> PanelSource:
    """A source from a feature store or an array; ``weights`` (p,) replace the source's own."""
    if isinstance(features, PanelSource):
        return features if weights is None else _Reweighted(features, weights)
    return ArraySource(features, weights)


class _Reweighted:
    """A source with other weights than its own."""

    def __init__(self, source: PanelSource, weights: Any) -> None:
        self._weights = np.asarray(weights, dtype=np.float64)
        self.shape = source.shape
        self.dtype = source.dtype
        self.read = source.read

    def weights(self) -> np.ndarray:
        return self._weights
