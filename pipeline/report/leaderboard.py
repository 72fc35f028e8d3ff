"""The comparison page of a registry: every model's newest revision on every benchmark, ranked.

Reads the history and the marks of failed tasks; writes ``leaderboard.html`` and ``leaderboard.md``.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artefact import read_json
from pipeline.history import Entry, Task, read_history
from pipeline.report.build import render

NOTHING = "–"


@dataclass(frozen=True)
class Line:
    """A task's newest revision beside the one before."""

    entry: Entry
    previous: Entry | None

    @property
    def loss(self) -> bool:
        """Whether less is better."""
        return self.entry.metric == "mse"

    @property
    def rank(self) -> tuple[bool, float]:
        """Sorts the best first: by OOD, by ID where there is none, unscored ones last."""
        score = self.entry.id if self.entry.ood is None else self.entry.ood
        return score is None, (score or 0.0) * (1 if self.loss else -1)

    @property
    def scores(self) -> dict[str, str]:
        """What is ranked, by column."""
        entry, before = self.entry, self.previous
        return {
            "ID": self._score(entry.id, entry.id_stderr),
            "change, ID": self._change(entry.id, before.id if before else None),
            "OOD": self._score(entry.ood, entry.ood_stderr),
            "change, OOD": self._change(entry.ood, before.ood if before else None),
            "drift": _drift(entry),
        }

    @property
    def cells(self) -> dict[str, str]:
        """All that is known of the revision, by column."""
        entry, before = self.entry, self.previous
        return {
            **self.scores,
            "revision": entry.revision,
            "before": before.revision if before else NOTHING,
            "date": entry.date,
            "seconds": f"{entry.seconds:.1f}",
            "MB": f"{entry.bytes / 1e6:.1f}",
        }

    def _score(self, value: float | None, stderr: float | None) -> str:
        if value is None:
            return NOTHING
        unit, digits = (1, 3) if self.loss else (100, 1)
        spread = "" if stderr is None else f" ± {unit * stderr:.{digits}f}"
        return f"{unit * value:.{digits}f}{spread}"

    def _change(self, now: float | None, before: float | None) -> str:
        if now is None or before is None:
            return NOTHING
        change = f"{now - before:+.3f}" if self.loss else f"{100 * (now - before):+.1f}"
        return change.replace("-", "−")


def write_leaderboard(folder: Path, history: Path, *, title: str, tasks: Collection[Task]) -> Path:
    """Write the page and its text into ``folder``; the path of the page.

    ``tasks`` are those that the registry holds now: what failed before it left is no news.
    """
    entries = read_history(history)
    content = {
        "title": title,
        "boards": boards(entries),
        "history": [Line(entry, None) for entry in reversed(entries)],
        "failures": [f for f in failures(folder) if Task(**f["task"]) in tasks],
    }
    for name in ("leaderboard.md", "leaderboard.html"):
        render(folder / name, f"{name}.j2", content)
    return folder / "leaderboard.html"


def boards(entries: Iterable[Entry]) -> dict[str, list[Line]]:
    """The ranked lines of every benchmark."""
    of_task: dict[Task, list[Entry]] = defaultdict(list)
    for entry in entries:
        of_task[entry.task].append(entry)
    found: dict[str, list[Line]] = defaultdict(list)
    for task, own in of_task.items():
        found[task.benchmark].append(Line(own[-1], own[-2] if len(own) > 1 else None))
    return {name: sorted(found[name], key=lambda line: line.rank) for name in sorted(found)}


def failures(folder: Path) -> list[dict[str, Any]]:
    """The tasks whose last visit failed, and why."""
    return [read_json(file) for file in sorted((folder / "runs").glob("*/*/*/failure.json"))]


def _drift(entry: Entry) -> str:
    """The drift on the training rows, or on whatever split has one."""
    found = entry.drift or {}
    values = found.get("train") or next(iter(found.values()), None)
    if values is None:
        return NOTHING
    return f"{values['relative']:.3f} (cos {values['cosine']:.3f})"
