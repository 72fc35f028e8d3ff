"""A kernel in a file, multiplied tile by tile: what solvers see of K on disk."""

from collections.abc import Callable, Iterator
from io import RawIOBase
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gram.panels import read_ahead, row_ranges
from pipeline.solvers.operator import tile_rows


class FileRows:
    """A float32 matrix in a ``.npy`` file, or its upper left part, as a source of row tiles.

    Rows are read by plain reads, one tile ahead of the arithmetic: mapped pages would count as this
    process's memory. Memory: two tiles in float32, one in float64.
    """

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, path: Path, shape: tuple[int, int] | None = None) -> None:
        self._path = path
        mapped = np.load(path, mmap_mode="r")
        assert mapped.dtype == np.float32, f"{path} holds {mapped.dtype}"
        assert mapped.flags.c_contiguous, f"{path} is not stored row by row"
        self._offset, self._width = mapped.offset, mapped.shape[1]
        self.shape = shape or (mapped.shape[0], mapped.shape[1])

    def tiles(self) -> Iterator[tuple[slice, Float[Tensor, "b n"]]]:
        """Row tiles in float64, in order; a tile is valid until the next one is asked for."""
        m, n = self.shape
        ranges = row_ranges(m, tile_rows(self._width, self.device))
        if not ranges:
            return
        raw = [torch.empty((len_of(ranges[0]), self._width)) for _ in range(2)]
        tile = torch.empty((len_of(ranges[0]), n), dtype=torch.float64)
        with self._path.open("rb", buffering=0) as file:

            def load(rows: slice, index: int) -> Tensor:
                values = raw[index % 2][: len_of(rows)]
                file.seek(self._offset + 4 * self._width * rows.start)
                read_fully(file, values.numpy().data.cast("B"))
                return values

            for rows, values in read_ahead(load, ranges):
                found = tile[: len(values)]
                found.copy_(values[:, :n])
                yield rows, found


def save_by_rows(
    path: Path, shape: tuple[int, int], rows_of: Callable[[slice], np.ndarray]
) -> None:
    """Write a float32 ``.npy`` matrix row by row, as :class:`FileRows` reads it, tile by tile."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for rows in row_ranges(shape[0], tile_rows(shape[1], FileRows.device)):
            np.ascontiguousarray(rows_of(rows), dtype=np.float32).tofile(file)


def len_of(rows: slice) -> int:
    """How many rows a range has."""
    count: int = rows.stop - rows.start
    return count


def read_fully(file: RawIOBase, target: memoryview) -> None:
    """Fill the memory; one read gives 2 GiB at most."""
    filled = 0
    while filled < len(target):
        count = file.readinto(target[filled:])
        if not count:
            raise EOFError(f"the file ended {len(target) - filled} bytes early.")
        filled += count
