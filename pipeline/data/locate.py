"""Finding a benchmark's files, with a message that helps where they are not."""

from pathlib import Path

from pipeline.data.parquet import find_shards
from pipeline.types import InputError


def require_folder(
    path: str | Path, expected: str, get_from: str, where: str = "benchmark.path"
) -> Path:
    """The folder at ``path``; else ``InputError`` saying what belongs there and where to get it."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise InputError(
            f"expected a folder at {folder}, found {found}. It should hold {expected}. "
            f"Where to get it: {get_from}",
            where,
        )
    return folder.resolve()


def require_file(path: str | Path, expected: str, where: str = "benchmark.path") -> Path:
    """The file at ``path``; else ``InputError`` saying what it should be."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"no file at {file}. It should be {expected}.", where)
    return file.resolve()


def require_shards(folder: Path, prefix: str, expected: str, get_from: str) -> list[Path]:
    """The Parquet files ``PREFIX-*.parquet`` of a folder; else ``InputError``."""
    shards = find_shards(folder, prefix)
    if not shards:
        raise InputError(
            f"no {prefix}-*.parquet in {folder}. It should hold {expected}. "
            f"Where to get it: {get_from}",
            "benchmark.path",
        )
    return shards
