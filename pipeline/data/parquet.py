"""Images in Parquet files of the Hugging Face layout: a column ``image: {bytes, path}`` and labels.

Splits read rows in random order, and a row group is the least that Parquet can read: groups are
kept in memory, per process, up to a limit. Sets larger than it are better unpacked to folders.
"""

import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.content_cache import remembered
from pipeline.data.decoding import UnreadableImageError, decode_image
from pipeline.data.split import Rows
from pipeline.types import InputError

IMAGE_COLUMNS = ("image", "img")
CACHE_BYTES = 512 * 2**20
"""Limit of the row groups kept in one process, in bytes."""

SHARD_NAME = re.compile(r"-(\d+)-of-(\d+)\.parquet$")


def find_shards(folder: Path, prefix: str) -> list[Path]:
    """The files ``PREFIX-*.parquet`` in a folder (or its ``data``), in order; [] if there are none.

    Names that say ``-of-N`` must all be there.
    """
    for place in (folder, folder / "data", folder / folder.name):
        shards = sorted(place.glob(f"{prefix}-*.parquet"))
        if shards:
            _refuse_missing_shards(shards, prefix)
            return shards
    return []


def _refuse_missing_shards(shards: Sequence[Path], prefix: str) -> None:
    numbered = [match for shard in shards if (match := SHARD_NAME.search(shard.name))]
    expected = max((int(match[2]) for match in numbered), default=0)
    missing = sorted(set(range(expected)) - {int(match[1]) for match in numbered})
    if missing:
        raise InputError(
            f"{shards[0].parent} has {len(shards)} of {expected} {prefix} files; missing: "
            f"{', '.join(map(str, missing))}. Complete the download.",
            "benchmark.path",
        )


@dataclass(frozen=True)
class ParquetSource:
    """Rows of several Parquet files, one after the other."""

    files: tuple[Path, ...]
    image_column: str
    group_starts: tuple[tuple[int, ...], ...]
    """First row of each row group within its file, and the file's number of rows at the end."""

    @classmethod
    def open(cls, files: Sequence[Path]) -> "ParquetSource":
        """The source over these files; reads their footers only."""
        opened = [_open(file) for file in files]
        columns = opened[0].schema_arrow.names
        image_column = next((name for name in IMAGE_COLUMNS if name in columns), None)
        if image_column is None:
            raise InputError(
                f"{files[0]} has no image column (one of {', '.join(IMAGE_COLUMNS)}, a struct of "
                f"bytes and path); its columns are {', '.join(columns)}.",
                "benchmark.path",
            )
        return cls(tuple(files), image_column, tuple(_group_starts(file) for file in opened))

    def __len__(self) -> int:
        return sum(starts[-1] for starts in self.group_starts)

    def column(self, name: str) -> NDArray[Any]:
        """A label column over all rows: int64, or objects for text.

        Whole numbers kept as floats, as pandas does beside missing values, are int64 too.
        """
        for file in self.files:
            names = _open(file).schema_arrow.names
            if name not in names:
                raise InputError(
                    f"{file} has no column {name!r}; its columns are {', '.join(names)}.",
                    "benchmark.path",
                )
        tables = [pq.read_table(file, columns=[name]) for file in self.files]
        values = pa.concat_tables(tables).column(name)
        if values.null_count:
            raise InputError(f"column {name!r} has {values.null_count} empty values.", "benchmark")
        array: NDArray[Any] = values.to_numpy()
        if array.dtype.kind == "f":
            self._refuse_fractions(name, array)
        return array.astype(np.int64) if array.dtype.kind in "iuf" else array

    def _refuse_fractions(self, name: str, values: NDArray[Any]) -> None:
        odd = np.flatnonzero(~(np.isfinite(values) & (values % 1 == 0)))
        if len(odd):
            raise InputError(
                f"column {name!r} has {len(odd)} value(s) that are no whole number, such as "
                f"{values[odd[0]]} of {self.ids(odd[:1])[0]}.",
                "benchmark",
            )

    def class_names(self, label: str) -> list[str] | None:
        """Names of a label column's classes, from the schema metadata; None where it has none."""
        metadata = _open(self.files[0]).schema_arrow.metadata or {}
        if b"class_names" in metadata:
            return list(json.loads(metadata[b"class_names"]))
        features = (
            json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        )
        names = features.get(label, {}).get("names")
        return list(names) if names else None

    def ids(self, rows: Rows) -> list[str]:
        """``file.parquet:row``."""
        places = (self._place(int(row)) for row in rows)
        return [f"{self.files[file].name}:{row}" for file, row in places]

    def fingerprints(self, rows: Rows) -> list[str]:
        """SHA-256 of the encoded bytes; a file's are computed once while it does not change."""
        return self.of_encoded(rows, "rows", _digest)

    def of_encoded(self, rows: Rows, fact: str, compute: Callable[[bytes], str]) -> list[str]:
        """``compute`` of each row's encoded bytes, for all rows of a file once while it is as is.

        ``fact`` names what is computed, as in :mod:`pipeline.data.content_cache`.
        """

        def of_rows(file: Path) -> list[str]:
            return [compute(encoded) for encoded in self._all_encoded(file)]

        values = remembered(self.files, f"{fact}-{self.image_column}", of_rows)
        return [values[file][row] for file, row in (self._place(int(row)) for row in rows)]

    def image(self, row: int) -> Image.Image:
        """The decoded image of a row."""
        file, within = self._place(row)
        name = f"{self.files[file]}, row {within}"
        data = self._encoded(file, within)
        if data is None:
            raise UnreadableImageError(f"{name}: no bytes are embedded in the file")
        return decode_image(data, name)

    def _place(self, row: int) -> tuple[int, int]:
        if row < 0:
            raise IndexError(f"row {row} of a Parquet source")
        for file, starts in enumerate(self.group_starts):
            if row < starts[-1]:
                return file, row
            row -= starts[-1]
        raise IndexError(f"row {row} past the end of {self.files[-1]}")

    def _encoded(self, file: int, row: int) -> bytes | None:
        starts = self.group_starts[file]
        group = int(np.searchsorted(starts, row, side="right")) - 1
        encoded = _ROW_GROUPS.get(self.files[file], group, self.image_column)
        data: bytes | None = encoded[row - starts[group]].as_py()
        return data

    def _all_encoded(self, file: Path) -> Iterator[bytes]:
        for group in range(_open(file).num_row_groups):
            for value in _read_group(file, group, self.image_column):
                yield value.as_py() if value.is_valid else b""


class _RowGroups:
    """Row groups read by this process, the least recently used dropped first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._groups: OrderedDict[tuple[Path, int, str], pa.Array] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, file: Path, group: int, column: str) -> pa.Array:
        """The encoded images of a row group."""
        key = (file, group, column)
        with self._lock:
            if key not in self._groups:
                self._groups[key] = _read_group(file, group, column)
                self._bytes += self._groups[key].nbytes
            self._groups.move_to_end(key)
            while self._bytes > self.limit and len(self._groups) > 1:
                self._bytes -= self._groups.popitem(last=False)[1].nbytes
            return self._groups[key]


_ROW_GROUPS = _RowGroups(CACHE_BYTES)


def _digest(encoded: bytes) -> str:
    return hashlib.sha256(encoded).hexdigest()


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{file} is not a readable Parquet file: {error}", "benchmark.path"
        ) from None


def _group_starts(file: pq.ParquetFile) -> tuple[int, ...]:
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return tuple(int(start) for start in np.cumsum([0, *sizes]))


def _read_group(file: Path, group: int, column: str) -> pa.Array:
    try:
        table = _open(file).read_row_group(group, columns=[f"{column}.bytes"], use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise UnreadableImageError(f"{file}: row group {group} is damaged ({error})") from None
    return table.column(column).combine_chunks().field("bytes")
