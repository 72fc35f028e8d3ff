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
    stats = [path.stat() for path in paths]
    keys = [[stat.st_size, stat.st_mtime_ns] for stat in stats]
    stale = [i for i, path in enumerate(paths) if memory.get(path.name, [None])[0] != keys[i]]
    if not stale:
        return [memory[path.name][1] for path in paths]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        computed = dict(zip(stale, pool.map(lambda i: compute(paths[i]), stale), strict=True))
    values = [computed[i] if i in computed else memory[p.name][1] for i, p in enumerate(paths)]
    settled = time.time_ns() - int(SETTLED_SECONDS * 1e9)
    fresh = {paths[i].name: [keys[i], computed[i]] for i in stale if stats[i].st_mtime_ns < settled}
    if fresh:
        _write_memory(memory_file, memory | fresh)
    return values


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
