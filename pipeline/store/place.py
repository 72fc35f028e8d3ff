"""Where stores lie: a folder, or a prefix of an object store (``s3://``, ``gs://``, ``az://``).

A place holds small and large files by key (``done/00003.json``). Whatever it is, a file appears
whole or not at all, and :meth:`Place.create` lets exactly one of several writers win.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import numpy as np

from pipeline.types import InputError

Location = Path | str
"""A folder, or an object store's URL as text (a :class:`~pathlib.Path` would eat a slash)."""

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//?)(.*)", re.DOTALL)
"""What is meant as a URL, whole or with a slash too few: scheme, slashes and the rest."""


class OpenedFile(Protocol):
    """A file from which ranges are read."""

    size: int
    """Its bytes."""

    def fill(self, buffers: Sequence[np.ndarray], offset: int) -> None:
        """Fill contiguous byte buffers, one after another, with what begins at ``offset``.

        Raises :class:`EOFError` where the file is too short.
        """


class Place(Protocol):
    """Files by key."""

    reads_at_once: int
    """How many reads under way at a time are fastest here."""

    def read(self, key: str) -> bytes:
        """A whole file; raises :class:`FileNotFoundError`."""

    def opened(self, key: str) -> AbstractContextManager[OpenedFile]:
        """A file to read ranges from; raises :class:`FileNotFoundError`."""

    def size(self, key: str) -> int | None:
        """A file's bytes; None where there is none."""

    def sizes(self, folder: str = "") -> Mapping[str, int]:
        """Bytes of every finished file below ``folder``, by key: one listing."""

    def read_each(self, keys: Sequence[str]) -> list[bytes]:
        """Several small files."""

    def write(self, key: str, content: bytes | memoryview) -> None:
        """Write or replace a file in one step, durably."""

    def create(self, key: str, content: bytes) -> bool:
        """Write a file unless it exists; False if it does."""

    def remove(self, key: str) -> None:
        """Delete a file, if it is there."""

    def remove_partial(self, key: str) -> None:
        """Delete what a killed writer of this file left beside it."""


def as_location(text: Path | str) -> Location:
    """A folder as a path, ``file://`` too, and any other URL as text without a final slash.

    What looks like a URL and is none is refused: it would become a folder of that name here.
    """
    if isinstance(text, Path) or not (url := URL.match(text)):
        return Path(text)
    scheme, slashes, rest = url[1].lower(), url[2], url[3].rstrip("/")
    if scheme == "file":
        folder = Path(unquote(rest.removeprefix("localhost")) or "/")
        if slashes == "//" and folder.is_absolute():
            return folder
    elif slashes == "//" and rest and not rest.startswith("/"):
        return f"{scheme}://{rest}"
    raise InputError(
        f"{text!r} is no URL of a folder or a prefix; expected file:///folder, s3://bucket/prefix, "
        "or a path"
    )


def on_disk(path: Path) -> Path:
    """The path; a URL, which would become a folder of that name here, is refused."""
    if URL.match(str(path)):
        raise InputError(
            f"what a command writes goes to a path on a disk or a mount, found {path}. Features "
            "alone may lie at a URL: set store.root."
        )
    return path


def child(location: Location, name: str) -> Location:
    """What lies at ``name`` inside a location."""
    return location / name if isinstance(location, Path) else f"{location}/{name}"


def absolute(location: Location) -> Location:
    """The same location for a process in another working folder."""
    return location.absolute() if isinstance(location, Path) else location


def place_at(location: Location) -> Place:
    """The place at a location, whether anything lies there or not."""
    location = as_location(location)
    if isinstance(location, Path):
        from pipeline.store.folder_place import FolderPlace

        return FolderPlace(location)
    from pipeline.store.object_place import ObjectPlace

    return ObjectPlace(location)
