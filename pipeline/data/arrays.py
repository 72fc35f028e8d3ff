"""Samples held in NumPy arrays, in memory or in an archive on disk."""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline.data.split import Rows, Sample
from pipeline.types import InputError


@runtime_checkable
class StoredArray(Protocol):
    """An array in a file, read where it is needed: workers are sent its path, not its values."""

    def read(self) -> NDArray[Any]:
        """The array."""
        ...


@dataclass(frozen=True)
class ArchivedArray:
    """One array of an ``.npz`` file, read when it is first needed in a process."""

    path: Path
    key: str

    def read(self) -> NDArray[Any]:
        """The array; the last few read stay in memory."""
        return _read_archived(self.path, self.key, self.path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read_archived(path: Path, key: str, modified: int) -> NDArray[Any]:
    del modified  # part of the key only: a changed file is read again
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: NDArray[Any] = archive[key]
    except (OSError, ValueError, EOFError, MemoryError, BadZipFile) as error:
        raise InputError(f"cannot read {key} of {path}: {error}", "benchmark.path") from None
    return array


@dataclass(frozen=True, eq=False)
class ArraySource:
    """uint8 images (n, h, w) or (n, h, w, c), or feature vectors (n, d)."""

    array: NDArray[Any] | StoredArray
    name: str
    """Prefix of the samples' ids."""

    def __post_init__(self) -> None:
        array = self._values()
        images = array.ndim in (3, 4) and array.dtype == np.uint8
        grey_or_rgb = array.ndim != 4 or array.shape[3] in (1, 3)
        vectors = array.ndim == 2 and array.dtype.kind in "fiu"
        if not (images and grey_or_rgb) and not vectors:
            raise InputError(
                f"{self.name} must hold uint8 images (n, h, w), (n, h, w, 1) or (n, h, w, 3), or "
                f"numeric feature vectors (n, d); found {array.dtype} {array.shape}.",
                "benchmark",
            )

    def _values(self) -> NDArray[Any]:
        return self.array.read() if isinstance(self.array, StoredArray) else self.array

    def __len__(self) -> int:
        return len(self._values())

    def ids(self, rows: Rows) -> list[str]:
        """``name:row``."""
        return [f"{self.name}:{row}" for row in rows]

    def fingerprints(self, rows: Rows) -> list[str]:
        """SHA-256 of type, shape and values."""
        array = self._values()
        header = f"{array.dtype.str}{array.shape[1:]}".encode()
        return [hashlib.sha256(header + array[row].tobytes()).hexdigest() for row in rows]

    def image(self, row: int) -> Sample:
        """uint8 (h, w[, c]), or float32 (d,)."""
        sample = self._values()[row]
        return sample.astype(np.float32) if sample.ndim == 1 else sample
