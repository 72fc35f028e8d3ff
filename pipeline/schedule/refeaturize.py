"""Visit every cell of a registry: what is unchanged costs a look, what is new is run and recorded.

Any number of schedulers may visit one registry at once. Each cell has a lock; a cell that another
one holds is visited again at the end, when it is done or free. A cell that fails, whatever the
reason, is recorded and the next one visited.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import filelock

from pipeline.analyses.stored import drift, out_of_core
from pipeline.artefact import write_json
from pipeline.history import Entry, Task, append_entry, latest, read_history
from pipeline.report.leaderboard import write_leaderboard
from pipeline.runs import RunFolder
from pipeline.schedule.cell import read_cell, run_cell
from pipeline.schedule.hub import Sources
from pipeline.schedule.options import Registry
from pipeline.stages.job import Progress
from pipeline.store import FeatureStore
from pipeline.types import InputError

logger = logging.getLogger(__name__)

HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Outcome:
    """What became of one cell."""

    task: Task
    state: Literal["unchanged", "scored", "failed"]
    detail: str


class TaskFolder:
    """What lies beside the runs of one task: its lock, and marks of how its last visit ended."""

    def __init__(self, root: Path, task: Task) -> None:
        self.path = root / "runs" / Path(*task)
        self.path.mkdir(parents=True, exist_ok=True)
        self.failure = self.path / "failure.json"
        self.begun = self.path / ".begun"

    @contextlib.contextmanager
    def owned(self, wait: bool) -> Iterator[bool]:
        """This process's right to visit the task; False where another has it, unless waiting."""
        lock = filelock.FileLock(self.path / ".lock", blocking=wait)
        try:
            lock.acquire()
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def refeaturize(registry: Registry, root: Path, progress: Progress) -> list[Outcome]:
    """Score what is new, write the comparison page; one outcome a cell, in the order visited."""
    read_history(root / HISTORY)  # damaged, it would stop every cell: told once, before any starts
    sources = Sources(registry, root)
    folders = {task: TaskFolder(root, task) for task in registry.tasks()}
    # A task that took its process down goes last, so that it cannot starve the others for ever.
    waiting = sorted(folders, key=lambda task: folders[task].begun.is_file())
    outcomes = []
    for wait in (False, True):
        held = []
        for task in waiting:
            with folders[task].owned(wait) as mine:
                if mine:
                    outcomes.append(_visit(registry, root, task, folders[task], sources, progress))
                else:
                    logger.info("%s: another scheduler is at it, later", task)
                    held.append(task)
        waiting = held
    page = write_leaderboard(root, root / HISTORY, title=registry.name, tasks=registry.tasks())
    logger.info("comparison: %s", page)
    return outcomes


def _visit(
    registry: Registry,
    root: Path,
    task: Task,
    folder: TaskFolder,
    sources: Sources,
    progress: Progress,
) -> Outcome:
    events = RunFolder(root)
    folder.begun.touch()
    try:
        outcome = _scored(registry, root, task, sources, progress)
    except (Exception, SystemExit) as error:  # The edge: one bad model never stops the others.
        logger.debug("where it happened:", exc_info=True)
        logger.error("%s: failed: %s", task, error)
        known = isinstance(error, InputError)
        detail = str(error) if known else f"{type(error).__name__}: {error}"
        write_json(folder.failure, {"task": task._asdict(), "error": detail})
        outcome = Outcome(task, "failed", detail)
    else:
        folder.failure.unlink(missing_ok=True)
    folder.begun.unlink(missing_ok=True)
    events.record_event("task_visited", **task._asdict(), state=outcome.state, note=outcome.detail)
    return outcome


def _scored(
    registry: Registry, root: Path, task: Task, sources: Sources, progress: Progress
) -> Outcome:
    path, source = sources.of(task.model)
    cell = read_cell(task, registry.run_values(task, path), source, root)
    history = root / HISTORY
    before = latest(read_history(history)).get(task)
    if before is not None and before.key == cell.key:
        logger.info("%s: unchanged, revision %s", task, cell.revision)
        return Outcome(task, "unchanged", cell.revision)
    logger.info("%s: revision %s is new", task, cell.revision)
    entry = run_cell(cell, progress)
    if before is not None:
        entry = replace(entry, drift=_drift(before, entry))
    append_entry(history, entry)
    return Outcome(task, "scored", cell.revision)


def _drift(before: Entry, after: Entry) -> dict[str, dict[str, float]] | None:
    """Drift on every split whose features of both revisions are there; None without one."""
    found = {}
    for split in [name for name in after.stores if name in before.stores]:
        try:
            pair = [FeatureStore.open(entry.stores[split]) for entry in (before, after)]
            with out_of_core(pair):
                found[split] = asdict(drift(*pair))
        except InputError as error:
            logger.info("%s: no drift on %s: %s", after.task, split, error)
    return found or None
