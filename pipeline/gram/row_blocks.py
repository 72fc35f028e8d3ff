"""Blocks of rows of the kernels: what one pass accumulates and where its rows go on disk."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from pipeline.gram.accumulate import Sums, add_product, add_squared_norms, new_block
from pipeline.gram.finish import DIAGONAL, mirror_lower
from pipeline.gram.sources import PanelSource, RowRange, StackedSource
from pipeline.gram.weighting import Weighting, weightings_of

ROWS_AT_ONCE = 256


class RowBlock(Protocol):
    """Some rows of the kernels, computed in one pass."""

    stack: StackedSource
    """The rows of features that the pass reads."""
    weightings: list[Weighting]

    def describe(self) -> str:
        """The rows, in words: part of the identity of a job."""
        ...

    def sums(self) -> list[np.ndarray]:
        """Zeros for what the pass accumulates."""
        ...

    def add(self, sums: Sequence[np.ndarray], panel: np.ndarray) -> None:
        """Add one panel of the stack."""
        ...

    def write(self, sums: Sequence[np.ndarray], folder: Path, extra: float) -> None:
        """Write the rows times ``extra`` and the weights' factors; the pass may go on after."""
        ...


class WholeBlock:
    """All rows of all kernels: one read of every feature byte."""

    def __init__(self, sources: Mapping[str, PanelSource]) -> None:
        self.names = list(sources)
        self.stack = StackedSource(list(sources.values()))
        self.weightings = weightings_of(self.stack.sources)

    def describe(self) -> str:
        """All rows."""
        return "all rows"

    def sums(self) -> list[np.ndarray]:
        """K's lower triangle, the crosses, the norms."""
        n = self.stack.row_ranges[0].stop
        zeros = Sums.zeros(n, self.stack.shape[0] - n)
        return [zeros.triangle, zeros.cross, zeros.norms]

    def add(self, sums: Sequence[np.ndarray], panel: np.ndarray) -> None:
        """Add one panel of all rows."""
        Sums(*sums).add(panel)

    def write(self, sums: Sequence[np.ndarray], folder: Path, extra: float) -> None:
        """Write all kernels."""
        triangle, cross, norms = sums
        # The pass reads the lower triangle only, so that filling the upper one disturbs nothing.
        mirror_lower(torch.from_numpy(triangle))
        n, training = len(triangle), self.weightings[0].factor
        write_rows(folder / "train.npy", 0, triangle.T, extra * training**2)
        others = zip(self.names[1:], self.stack.row_ranges[1:], self.weightings[1:], strict=True)
        for name, rows, weights in others:
            own = slice(rows.start - n, rows.stop - n)
            write_rows(folder / f"{name}.npy", 0, cross.T[own], extra * training * weights.factor)
            write_diagonal(folder, name, 0, norms[own] * (extra * weights.factor**2))


class TriangleBlock:
    """Some rows of one kernel: of K only up to the diagonal, of a cross-kernel whole."""

    def __init__(self, sources: Mapping[str, PanelSource], name: str, rows: slice) -> None:
        self.name = name
        self.rows = rows
        train = sources["train"]
        self.of_training = name == "train"
        self.extent = rows.stop if self.of_training else train.shape[0]
        parts: list[PanelSource] = [RowRange(train, slice(0, self.extent))]
        if not self.of_training:
            parts.append(RowRange(sources[name], rows))
        self.stack = StackedSource(parts)
        self.weightings = weightings_of(parts)

    def describe(self) -> str:
        """The kernel's name and the rows."""
        return f"{self.name} {self.rows.start}-{self.rows.stop}"

    def sums(self) -> list[np.ndarray]:
        """The rows' products with the training rows, and their norms."""
        height = self.rows.stop - self.rows.start
        return [new_block(self.extent, height), np.zeros(height)]

    def add(self, sums: Sequence[np.ndarray], panel: np.ndarray) -> None:
        """Add one panel."""
        own = panel[self.rows] if self.of_training else panel[self.extent :]
        add_product(sums[0], panel[: self.extent], own)
        if not self.of_training:
            add_squared_norms(sums[1], own)

    def write(self, sums: Sequence[np.ndarray], folder: Path, extra: float) -> None:
        """Write these rows."""
        training, own = self.weightings[0].factor, self.weightings[-1].factor
        first = self.rows.start
        write_rows(folder / f"{self.name}.npy", first, sums[0].T, extra * training * own)
        if not self.of_training:
            write_diagonal(folder, self.name, first, sums[1] * (extra * own**2))


def write_rows(path: Path, first: int, block: np.ndarray, factor: float) -> None:
    """Write ``block · factor`` from row ``first`` and column 0 on into a ``.npy`` matrix.

    By plain writes: mapped pages would count as this process's memory.
    """
    mapped = np.load(path, mmap_mode="r")
    offset, width = mapped.offset, mapped.shape[1] * mapped.itemsize
    with path.open("r+b") as file:
        for start in range(0, len(block), ROWS_AT_ONCE):
            scaled = block[start : start + ROWS_AT_ONCE] * np.float32(factor)
            for i, row in enumerate(np.ascontiguousarray(scaled)):
                file.seek(offset + (first + start + i) * width)
                file.write(row.data)
        file.flush()
        os.fsync(file.fileno())


def write_diagonal(folder: Path, name: str, first: int, values: np.ndarray) -> None:
    """Write k(x, x) of some rows of a cross-kernel."""
    mapped = np.load(folder / f"{name}{DIAGONAL}.npy", mmap_mode="r+")
    mapped[first : first + len(values)] = values
    mapped.flush()
