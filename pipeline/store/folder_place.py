"""Files in a folder, of this machine or of a file system that several machines see."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.artefact import atomic_path, partial_beside

READS_AT_ONCE = max(1, min(8, (os.cpu_count() or 1) // 4))
"""Shards read at once: a quarter of the cores, the others are for the arithmetic."""


class OpenedLocalFile:
    """Reads ranges of an open file where they are wanted, without a copy between."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def fill(self, buffers: Sequence[np.ndarray], offset: int) -> None:
        """Fill the buffers from ``offset`` on; one call may give less than was asked for."""
        pending = [buffer.data for buffer in buffers if buffer.nbytes]
        while pending:
            count = os.preadv(self._descriptor, pending, offset)
            if count == 0:
                raise EOFError
            offset += count
            while pending and count >= pending[0].nbytes:
                count -= pending.pop(0).nbytes
            if pending:
                pending[0] = pending[0][count:]


class FolderPlace:
    """Keys are paths below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.reads_at_once = READS_AT_ONCE

    def read(self, key: str) -> bytes:
        """A whole file."""
        return (self._folder / key).read_bytes()

    def read_each(self, keys: Sequence[str]) -> list[bytes]:
        """Several small files, one after another."""
        return [self.read(key) for key in keys]

    @contextlib.contextmanager
    def opened(self, key: str) -> Iterator[OpenedLocalFile]:
        """A file to read ranges from."""
        with (self._folder / key).open("rb", buffering=0) as file:
            yield OpenedLocalFile(file.fileno())

    def size(self, key: str) -> int | None:
        """A file's bytes, or None."""
        try:
            return (self._folder / key).stat().st_size
        except FileNotFoundError:
            return None

    def sizes(self, folder: str = "") -> Mapping[str, int]:
        """Bytes of every finished file below ``folder``, by key."""
        found: dict[str, int] = {}
        for place, _, names in os.walk(self._folder / folder):
            for name in names:
                if not name.endswith(".partial"):
                    path = Path(place) / name
                    found[path.relative_to(self._folder).as_posix()] = path.stat().st_size
        return found

    def write(self, key: str, content: bytes | memoryview) -> None:
        """Write or replace a file in one step."""
        with atomic_path(self._folder / key) as partial:
            partial.write_bytes(content)

    def create(self, key: str, content: bytes) -> bool:
        """Write a file unless it exists; a hard link is refused where there is a file."""
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_beside(path) as offer:
            offer.write_bytes(content)
            try:
                os.link(offer, path)
            except FileExistsError:
                return False
        return True

    def remove(self, key: str) -> None:
        """Delete a file, if it is there."""
        (self._folder / key).unlink(missing_ok=True)

    def remove_partial(self, key: str) -> None:
        """Delete what killed writers of this file left."""
        path = self._folder / key
        for stale in path.parent.glob(f"{path.name}.*.partial"):
            stale.unlink(missing_ok=True)
