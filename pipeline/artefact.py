"""Finished results on disk: written whole or not at all, and opened only with their provenance.

An artefact is a folder with a ``provenance.json``, and ``files.json``, the size of every file in
it. It is prepared beside its place, in ``NAME.partial``, and renamed when complete, so the folder's
existence is the done mark; a file lost or cut since then makes it undone.
"""

import contextlib
import errno
import hashlib
import json
import os
import pickle
import platform
import shutil
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.types import InputError

PROVENANCE = "provenance.json"
FILES = "files.json"

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


UNPICKLING_ERRORS = (
    RuntimeError,
    EOFError,
    ValueError,
    OSError,
    LookupError,
    AttributeError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
)
"""What torch raises on files that are none of its own; the set is wide: any byte is an opcode."""


class ForeignArtefactError(InputError):
    """An artefact made from other inputs than this run's."""


class CorruptArtefactError(InputError):
    """An artefact whose bytes are damaged or incomplete."""


class FullDiskError(InputError):
    """There is no room to write a file; what was finished before it is safe."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"no space is left to write {path}. Free space or move store.root; the same command "
            "continues."
        )


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over name, dtype, shape and bytes of every tensor, in order."""
    hasher = hashlib.sha256()
    for name, tensor in tensors.items():
        hasher.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        # Bytes, not values: bfloat16 has no NumPy type, and -0.0 differs from 0.0.
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        hasher.update(flat.view(torch.uint8).numpy().data)
    return hasher.hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write; it replaces ``path`` in one step, or goes if the block fails.

    Readers see the old file or the new one, never a part, even after a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial_beside(path) as partial:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)


@contextlib.contextmanager
def partial_beside(path: Path) -> Iterator[Path]:
    """A file of this thread alone, on any machine, for what shall be at ``path``; it goes after.

    Raises :class:`FullDiskError` where there is no room for it.
    """
    writer = f"{platform.node()}-{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(f"{path.name}.{writer}.partial")
    try:
        yield partial
    except OSError as error:
        if error.errno in FULL_DISK:
            raise FullDiskError(path) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON atomically; NaN and infinity are refused, they are no JSON."""
    with atomic_path(path) as partial:
        partial.write_text(readable_json(value))


def readable_json(value: Any) -> str:
    """Indented JSON with a final newline; NaN and infinity are refused."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """The value in a JSON file; a damaged one is refused by name."""
    return parsed_json(path.read_bytes(), str(path))


def parsed_json(content: bytes, name: str) -> Any:
    """The value of a JSON file's bytes; a damaged one is refused by name."""
    try:
        return json.loads(content.decode())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptArtefactError(
            f"{name} is damaged ({error}). Delete it and run the command again."
        ) from None


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file; a damaged one is refused by name."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (BadZipFile, ValueError, EOFError) as error:
        raise CorruptArtefactError(
            f"{path} is damaged ({error}). Delete its folder and run the command again."
        ) from None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What ``torch.save`` wrote of this program's own; a damaged file is refused by name."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, *UNPICKLING_ERRORS):
        # Torch's own words advise to load it unsafely.
        content = None
    if not isinstance(content, dict):
        raise CorruptArtefactError(
            f"{path} is damaged: no checkpoint of ours. Delete it and run the command again."
        )
    return content


def is_done(path: Path, provenance: Mapping[str, Any]) -> bool:
    """Whether a finished artefact lies at ``path`` that was made from exactly this provenance."""
    if not (path / PROVENANCE).is_file() or not (path / FILES).is_file():
        return False
    return read_json(path / PROVENANCE) == _plain(provenance) and not damaged_files(path)


def damaged_files(path: Path) -> list[str]:
    """The files of an artefact that are missing or have another size than they were written."""
    written = read_json(path / FILES) if (path / FILES).is_file() else {}
    found = _file_sizes(path)
    return [name for name, size in written.items() if found.get(name) != size]


def _file_sizes(path: Path) -> dict[str, int]:
    """Bytes of every file of an artefact, marks aside, by its path inside."""
    files = (file for file in path.rglob("*") if file.is_file())
    sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
    return {name: sizes[name] for name in sorted(sizes) if name not in (FILES, PROVENANCE)}


@contextlib.contextmanager
def new_artefact(path: Path, provenance: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to fill; it becomes the artefact at ``path`` when the block ends without error.

    Whatever stood at ``path`` before is replaced only then, and never stands there half removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    replaced = path.with_name(f"{path.name}.replaced.partial")
    _remove(partial)
    partial.mkdir()
    yield partial
    write_json(partial / FILES, _file_sizes(partial))
    write_json(partial / PROVENANCE, _plain(provenance))
    for file in partial.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    _remove(replaced)
    if path.exists():
        os.replace(path, replaced)
    os.replace(partial, path)
    _sync_folder(path.parent)
    _remove(replaced)


def open_artefact(path: Path, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The provenance of a finished artefact; compared with the one wanted, when given.

    Raises :class:`ForeignArtefactError` naming both sides where they differ, and
    :class:`CorruptArtefactError` naming files that are missing or cut.
    """
    if not (path / PROVENANCE).is_file():
        raise InputError(f"no finished artefact at {path}. Run the stage that makes it first.")
    found: dict[str, Any] = read_json(path / PROVENANCE)
    damaged = damaged_files(path)
    if damaged:
        raise CorruptArtefactError(
            f"{path} is damaged: {', '.join(damaged)} missing or cut. Run the command again, or "
            "delete the folder."
        )
    if provenance is not None:
        refuse_difference(path, found, _plain(provenance))
    return found


def refuse_difference(
    path: Path | str, found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Raise :class:`ForeignArtefactError` unless both provenances are equal."""
    differing = differences(found, wanted)
    if differing:
        lines = "\n".join(f"  {key}: found {a!r}, wanted {b!r}" for key, a, b in differing)
        raise ForeignArtefactError(
            f"{path} was made from other inputs:\n{lines}\nUse another folder, or delete it."
        )


def differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """The keys (dotted) at which two nested mappings differ, with both values."""
    result: list[tuple[str, Any, Any]] = []
    for key in sorted({*found, *wanted}):
        a, b = found.get(key), wanted.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            result += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            result.append((f"{prefix}{key}", a, b))
    return result


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping as JSON gives it back (tuples are lists), so that comparison is exact."""
    plain: dict[str, Any] = json.loads(canonical_json(value))
    return plain


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
