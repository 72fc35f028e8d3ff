"""What a registry's retention rule lets go: features and kernels of older revisions.

Only what the registry's own history names is ever removed, and only while no scheduler is at work.
Scores, fits, predictions and reports stay, so that the history stays readable.
"""

import logging
import shutil
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.artefact import PROVENANCE
from pipeline.history import Entry, Task, read_history
from pipeline.schedule.cell import folder_bytes
from pipeline.schedule.options import Registry, RetentionOptions
from pipeline.schedule.refeaturize import HISTORY, TaskFolder
from pipeline.store.features import STORE
from pipeline.store.lease import live_leases
from pipeline.store.place import place_at
from pipeline.types import InputError

logger = logging.getLogger(__name__)

STORE_PREFIX = "features-"
"""What the names of all feature stores in a cache begin with."""

LEAVING = ".expired"
"""What the name of a folder ends with while it is removed."""


@dataclass(frozen=True)
class Expired:
    """A folder that the rule lets go."""

    path: Path
    bytes: int
    entry: Entry
    """The last revision that used it."""


def expired(
    entries: Iterable[Entry], rule: RetentionOptions, root: Path, now: datetime
) -> list[Expired]:
    """Folders of older revisions that no kept revision of any task uses, and that are there.

    What a killed removal left is among them, whoever needs a folder of that name again.
    """
    kept, old = _parted(entries, rule, now)
    needed = {path: entry for entry in kept for path in _folders(entry, root)}
    last_use = {path: entry for entry in old for path in _folders(entry, root)}
    gone = {p: entry for p, entry in last_use.items() if p not in needed and _is_ours(p)}
    left = {_leaving(path): entry for path, entry in {**last_use, **needed}.items()}
    left = {p: entry for p, entry in left.items() if p.is_dir() and not p.is_symlink()}
    # What is left goes first: its name is wanted by the next of the same folder.
    return [
        Expired(path, folder_bytes(path), entry)
        for path, entry in [*sorted(left.items()), *sorted(gone.items())]
    ]


def collect(registry: Registry, root: Path, *, dry_run: bool) -> list[Expired]:
    """Remove what is expired, or only say what would be; what it was.

    Raises :class:`InputError` where a scheduler is at work on the registry.
    """
    with ExitStack() as locks:
        if not dry_run:
            for task in {*registry.tasks(), *(e.task for e in read_history(root / HISTORY))}:
                if not locks.enter_context(TaskFolder(root, task).owned(wait=False)):
                    raise InputError(f"a scheduler is at {task}. Try again when it is done.")
        found = expired(
            read_history(root / HISTORY), registry.retention, root, datetime.now(tz=UTC)
        )
        if dry_run:
            return found
        return [item for item in found if _removed(item.path)]


def _parted(
    entries: Iterable[Entry], rule: RetentionOptions, now: datetime
) -> tuple[list[Entry], list[Entry]]:
    """The entries that the rule keeps, and the others."""
    of_task: dict[Task, list[Entry]] = defaultdict(list)
    for entry in entries:
        of_task[entry.task].append(entry)
    kept: list[Entry] = []
    old: list[Entry] = []
    for own in of_task.values():
        newest = list(dict.fromkeys(entry.key for entry in reversed(own)))[: rule.revisions]
        for entry in own:
            young = rule.days is not None and now - _date(entry) < timedelta(days=rule.days)
            (kept if young or entry.key in newest else old).append(entry)
    return kept, old


def _date(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry.date)


def _folders(entry: Entry, root: Path) -> list[Path]:
    """Stores and kernel of an entry; a history that names anything else is refused."""
    stores = [Path(store) for store in entry.stores.values()]
    kernel = root / entry.run / "kernel"
    sound = all(path.name.startswith(STORE_PREFIX) and ".." not in path.parts for path in stores)
    if not sound or not kernel.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"the history of {entry.task}, revision {entry.revision}, names folders that are no "
            f"features and no kernel of this schedule ({', '.join(map(str, stores))}; {entry.run})."
            " Nothing was removed. Mend or delete that line.",
            str(root / HISTORY),
        )
    return [*stores, kernel]


def _is_ours(path: Path) -> bool:
    """A feature store or a kernel, and no link that leads elsewhere."""
    marks = STORE, PROVENANCE
    return path.is_dir() and not path.is_symlink() and any((path / m).is_file() for m in marks)


def _removed(path: Path) -> bool:
    """Remove a folder; a store that a run outside of the registry is writing stays."""
    if path.name.endswith(LEAVING):
        shutil.rmtree(path)
        return True
    if live_leases(place_at(path)):
        logger.info("%s: in use, kept", path)
        return False
    # Renamed first: a store is there as a whole or not at all.
    leaving = _leaving(path)
    path.rename(leaving)
    shutil.rmtree(leaving)
    return True


def _leaving(path: Path) -> Path:
    return path.with_name(f"{path.name}{LEAVING}")
