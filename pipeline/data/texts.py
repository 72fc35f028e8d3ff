"""Texts in a column of CSV or Parquet tables."""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.labelled_rows import column_values
from pipeline.data.split import Rows


@dataclass(frozen=True)
class TextSource:
    """The rows of several tables, one after the other; read when first needed in a process."""

    files: tuple[Path, ...]
    column: str

    def __len__(self) -> int:
        return len(self._rows())

    def ids(self, rows: Rows) -> list[str]:
        """``file:row``, rows counted from 0 within the file."""
        named = self._rows()
        return [named[row][0] for row in rows]

    def fingerprints(self, rows: Rows) -> list[str]:
        """SHA-256 of each text."""
        return [hashlib.sha256(self.image(row).encode()).hexdigest() for row in rows]

    def image(self, row: int) -> str:
        """The text of a row."""
        return self._rows()[row][1]

    def _rows(self) -> list[tuple[str, str]]:
        modified = tuple(file.stat().st_mtime_ns for file in self.files)
        return _read(self.files, self.column, modified)


@functools.lru_cache(maxsize=4)
def _read(files: tuple[Path, ...], column: str, modified: tuple[int, ...]) -> list[tuple[str, str]]:
    """Name and text of every row."""
    del modified  # part of the key only: a changed file is read again
    return [
        (f"{file.name}:{row}", text)
        for file in files
        for row, text in enumerate(column_values(file, column))
    ]
