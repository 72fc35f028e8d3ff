"""What every stage does around its work: skip it when done, replace it when stale, time it."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.artefact import (
    PROVENANCE,
    damaged_files,
    differences,
    is_done,
    new_artefact,
    read_json,
)
from pipeline.runs import RunFolder

logger = logging.getLogger(__name__)


def run_stage(
    folder: RunFolder,
    name: str,
    path: Path,
    provenance: Mapping[str, Any],
    make: Callable[[Path], Mapping[str, Any]],
) -> bool:
    """Make the artefact at ``path`` unless it is there; whether anything was made.

    ``make`` fills the folder it is given and returns facts for the log and ``timing.json``.
    An artefact made from other inputs (another seed, say) is made again and replaced only by the
    finished new one; the log names what changed.
    """
    if is_done(path, provenance):
        logger.info("%s: already done, reused", name)
        return False
    if (path / PROVENANCE).is_file():
        changed = [key for key, _, _ in differences(read_json(path / PROVENANCE), provenance)]
        changed += [f"{file} (missing or cut)" for file in damaged_files(path)]
        logger.info("%s: made again, changed since: %s", name, ", ".join(changed))
    folder.record_event("stage_started", stage=name)
    started = time.perf_counter()
    with new_artefact(path, provenance) as partial:
        facts = dict(make(partial))
    seconds = time.perf_counter() - started
    folder.record_timing(name, {**facts, "seconds": seconds})
    folder.record_event("stage_done", stage=name, seconds=round(seconds, 3), **facts)
    shown = ", ".join(f"{key} {_short(value)}" for key, value in facts.items())
    logger.info("%s: %s%.1f s", name, f"{shown}, " if shown else "", seconds)
    return True


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
