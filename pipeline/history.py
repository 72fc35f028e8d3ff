"""What was scored when, over all revisions of a registry's models: one JSON object a line.

Lines are only ever added, under a lock, so two schedulers may append to one file; what is current
is the last line of each task.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import filelock
from pydantic import TypeAdapter

from pipeline.artefact import CorruptArtefactError

HEADLINE = "entk"
"""The method whose scores a revision is ranked by."""


class Task(NamedTuple):
    """One cell of a registry: which model, on which benchmark, through which sketch."""

    model: str
    benchmark: str
    sketch: str

    def __str__(self) -> str:
        return " · ".join(self)


@dataclass(frozen=True)
class Entry:
    """One revision of one task, scored."""

    model: str
    benchmark: str
    sketch: str
    revision: str
    """First 12 digits of the hash of the network's weights, head included."""
    source: str
    """Where the weights came from: a file, a folder, or REPO@COMMIT."""
    key: str
    """Digest of everything that determines features and scores."""
    date: str
    """UTC, ISO 8601."""
    run: str
    """The run's folder, relative to the history's."""
    metric: str
    """What ``id`` and ``ood`` are: accuracy, or mse."""
    id: float | None
    id_stderr: float | None
    ood: float | None
    ood_stderr: float | None
    scores: dict[str, dict[str, float]]
    """The metric of every method on every split."""
    seconds: float
    """Wall time of this run; little where shards were there already."""
    bytes: int
    """Size of the features of all splits, in bytes."""
    stores: dict[str, str]
    """Feature store of each split."""
    drift: dict[str, dict[str, float]] | None = None
    """How far each split's features moved from the task's entry before, on the same rows."""

    @property
    def task(self) -> Task:
        """The cell of the registry."""
        return Task(self.model, self.benchmark, self.sketch)


ENTRY = TypeAdapter(Entry)


def read_history(path: Path) -> list[Entry]:
    """All entries, oldest first; a last line cut by a dying writer is left out.

    Raises :class:`CorruptArtefactError` naming the first line that is no entry.
    """
    # Bytes: a name may hold what text counts as the end of a line, and a cut one half a letter.
    *lines, last = (path.read_bytes() if path.is_file() else b"").split(b"\n")
    entries = []
    for number, line in enumerate(lines, 1):
        entry = _entry(line)
        if entry is not None:
            entries.append(entry)
        elif line.strip():
            raise CorruptArtefactError(
                f"{path}, line {number} is damaged. Take that line out; the task it spoke of is "
                "scored again."
            )
    whole = _entry(last)
    return entries if whole is None else [*entries, whole]


def latest(entries: list[Entry]) -> dict[Task, Entry]:
    """The last entry of every task."""
    return {entry.task: entry for entry in entries}


def append_entry(path: Path, entry: Entry) -> bool:
    """Add an entry unless the task's last one has its key already; whether it was added."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f"{path.name}.lock")):
        current = latest(read_history(path)).get(entry.task)
        if current is not None and current.key == entry.key:
            return False
        _end_last_line(path)
        with path.open("a") as file:
            file.write(json.dumps(asdict(entry), allow_nan=False, ensure_ascii=False) + "\n")
    return True


def scored(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an :class:`Entry` that come from the content of ``metrics.json``."""
    metric = metrics["selection"]["metric"]
    methods = metrics["methods"]
    headline = methods.get(HEADLINE, {}).get("splits", {})
    return {
        "metric": metric,
        **{
            name: headline.get(split, {}).get(field)
            for name, split, field in (
                ("id", "id_test", metric),
                ("id_stderr", "id_test", "stderr"),
                ("ood", "ood_test", metric),
                ("ood_stderr", "ood_test", "stderr"),
            )
        },
        "scores": {
            method: {split: values[metric] for split, values in found.get("splits", {}).items()}
            for method, found in methods.items()
        },
    }


def _entry(line: bytes) -> Entry | None:
    """The entry that a line holds; None where it is damaged or empty."""
    try:
        entry = ENTRY.validate_json(line)
        return entry if datetime.fromisoformat(entry.date).tzinfo else None
    except ValueError:
        return None


def _end_last_line(path: Path) -> None:
    """What follows the last newline gets its own if it is whole, and is cut off if it is not."""
    content = path.read_bytes() if path.is_file() else b""
    last = content.rpartition(b"\n")[2]
    if not last:
        return
    with path.open("r+b") as file:
        if _entry(last) is None:
            file.truncate(len(content) - len(last))
        else:
            file.seek(len(content))
            file.write(b"\n")
