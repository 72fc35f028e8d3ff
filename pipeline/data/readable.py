"""Which images of a source cannot be decoded: found before rows are numbered, and remembered.

Feature blocks have fixed rows, so an image cannot be skipped while they are computed; where the
config asks to skip, every image is decoded once beforehand.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.data.content_cache import remembered
from pipeline.data.decoding import UnreadableImageError, decode_image
from pipeline.data.image_folder import FolderSource
from pipeline.data.split import Rows, Source

logger = logging.getLogger(__name__)

DECODE_THREADS = 4


def unreadable_rows(source: Source, rows: Rows) -> dict[int, str]:
    """Rows whose image cannot be decoded, each with its name and the reason."""
    logger.info("decoding %d images once, to leave unreadable ones out", len(rows))
    if isinstance(source, FolderSource):
        problems = remembered(source.paths(rows), "unreadable", _file_problem)
    else:
        with ThreadPoolExecutor(DECODE_THREADS) as pool:
            problems = list(pool.map(lambda row: _problem(source, int(row)), rows))
    return {int(row): text for row, text in zip(rows, problems, strict=True) if text is not None}


def _file_problem(path: Path) -> str | None:
    try:
        decode_image(path.read_bytes(), str(path))
    except UnreadableImageError as error:
        return error.reason
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None


def _problem(source: Source, row: int) -> str | None:
    try:
        source.image(row)
    except UnreadableImageError as error:
        return error.reason
    return None
