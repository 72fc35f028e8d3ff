"""Facts about files (content hashes, readability), remembered by path, size and modification time.

One small JSON file for each folder of data, under ``$ENTK_CACHE`` or ``~/.cache/entk``, replaced
atomically: safe on network file systems, and losing it costs only the time to recompute.
"""

import hashlib
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.artefact import CorruptArtefactError, atomic_path, canonical_json, read_json

logger = logging.getLogger(__name__)

READ_THREADS = 8
SETTLED_SECONDS = 2.0
"""A file changed this recently may change again within the clock's tick: do not remember it."""


def cache_folder() -> Path:
    """``$ENTK_CACHE``, or ``~/.cache/entk``."""
    return Path(os.environ.get("ENTK_CACHE", Path.home() / ".cache" / "entk"))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered(paths: Sequence[Path], fact: str, compute: Callable[[Path], Any]) -> list[Any]:
    """``compute(path)`` for every path, computed only where the file changed since last time.

    ``fact`` names what is computed and, with the path, keys the memory; values must be JSON.
    """
    folders: dict[Path, list[int]] = defaultdict(list)
    for position, path in enumerate(paths):
        folders[path.parent].append(position)
    values: list[Any] = [None] * len(paths)
    for folder, positions in folders.items():
        found = _in_folder(folder, [paths[i] for i in positions], fact, compute)
        for position, value in zip(positions, found, strict=True):
            values[position] = value
    return values


def _in_folder(
    folder: Path, paths: Sequence[Path], fact: str, compute: Callable[[Path], Any]
) -> list[Any]:
    memory_file = _memory_file(folder, fact)
    memory = _read_memory(memory_file)
    versions = [_version(path) for path in paths]
    known = {p.name for p, version in zip(paths, versions, strict=True) if _is(memory, p, version)}
    stale = [path for path in paths if path.name not in known]
    if stale:
        with ThreadPoolExecutor(READ_THREADS) as pool:
            computed = dict(zip(stale, pool.map(compute, stale), strict=True))
        settled = time.time_ns() - int(SETTLED_SECONDS * 1e9)
        fresh = {
            path.name: [version, computed[path]]
            for path, version in zip(paths, versions, strict=True)
            if path in computed and version is not None and version[1] < settled
        }
        if fresh:
            _write_memory(memory_file, memory | fresh)
        return [computed[p] if p in computed else memory[p.name][1] for p in paths]
    return [memory[path.name][1] for path in paths]


def _version(path: Path) -> list[int] | None:
    """Size in bytes and modification time in ns; None of a file that is not there.

    ``compute`` then says what is wrong in its own words.
    """
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _is(memory: dict[str, Any], path: Path, version: list[int] | None) -> bool:
    return version is not None and memory.get(path.name, [None])[0] == version


def _memory_file(folder: Path, fact: str) -> Path:
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]
    return cache_folder() / "content" / f"{key}.{fact}.json"


def _read_memory(path: Path) -> dict[str, Any]:
    try:
        memory = read_json(path)
    except (CorruptArtefactError, OSError) as error:
        if path.exists():
            logger.warning("ignoring the content cache %s: %s", path, error)
        return {}
    return memory if isinstance(memory, dict) else {}


def _write_memory(path: Path, memory: dict[str, Any]) -> None:
    try:
        with atomic_path(path) as partial:
            partial.write_text(canonical_json(memory))
    except OSError as error:
        logger.warning(
            "content hashes cannot be kept in %s (%s); they are recomputed each time. "
            "Set ENTK_CACHE to a writable folder.",
            path.parent,
            error,
        )
