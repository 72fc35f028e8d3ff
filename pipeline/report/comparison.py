"""Several runs side by side: which rows they were scored on, and their differences on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.evaluation import read_predictions
from pipeline.metrics.bootstrap import LEVEL, mean_intervals
from pipeline.report.record import Run, Samples, ordered_splits, split_label
from pipeline.report.words import points
from pipeline.types import InputError

LEVEL_IN_WORDS = f"{100 * LEVEL:g} %"
"""Of the intervals of :func:`lead_rows`."""


@dataclass(frozen=True)
class Lead:
    """How far a run's method is ahead of the first run's, on the same rows."""

    text: str
    interval: str
    is_clear: bool
    """Whether the interval leaves out 0."""


@dataclass(frozen=True)
class LeadRow:
    """One method of one run."""

    method: str
    runs: str
    leads: list[Lead | None]
    """One a split; none where the rows are not the same."""


def distinct_folders(folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The folders, each once whatever path it was given by, and a note on each left out."""
    kept: dict[Path, Path] = {}
    notes = []
    for folder in folders:
        if folder.resolve() in kept:
            notes.append(f"{folder} is the same folder as {kept[folder.resolve()]}: shown once.")
        kept.setdefault(folder.resolve(), folder)
    if len(kept) < 2:
        raise InputError(f"all are the same folder, {folders[0]}. Name another run to compare.")
    return list(kept.values()), notes


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs; those of one name carry the shortest end of their folder that differs."""
    names = [run.name for run in runs]
    result = []
    for run in runs:
        namesakes = [r.folder.resolve().parts for r in runs if r.name == run.name]
        parts = run.folder.resolve().parts
        clashes = names.count(run.name) > 1
        ends = (n for n in range(1, len(parts) + 1) if _is_alone(parts, namesakes, n))
        end = "/".join(parts[-next(ends, len(parts)) :]) if clashes else ""
        result.append(replace(run, told_apart_by=end))
    return result


def _is_alone(parts: tuple[str, ...], namesakes: Sequence[tuple[str, ...]], n: int) -> bool:
    return sum(other[-n:] == parts[-n:] for other in namesakes) == 1


def rows_by_split(run: Run) -> dict[str, Samples]:
    """The rows of each test split: as listed, or merely their number where there is no list."""
    found = {}
    for split in run.splits:
        counts = [int(m.splits[split].get("n") or 0) for m in run.methods if split in m.splits]
        if split != "val":
            found[split] = run.samples.get(split) or Samples(counts[0], "")
    return found


def differing_splits(runs: Sequence[Run]) -> list[str]:
    """The test splits on which the runs were scored on different rows."""
    rows = [rows_by_split(run) for run in runs]
    splits = ordered_splits({split for found in rows for split in found})
    return [s for s in splits if not _are_same([found[s] for found in rows if s in found])]


def _are_same(rows: Sequence[Samples]) -> bool:
    lists = {samples.sha256 for samples in rows} - {""}
    return len({samples.n for samples in rows}) == 1 and len(lists) <= 1


def counts_in_words(run: Run) -> str:
    """The number of rows of each test split."""
    return ", ".join(f"{split_label(s)} n = {rows.n:,}" for s, rows in rows_by_split(run).items())


def lead_rows(runs: Sequence[Run]) -> tuple[list[str], list[LeadRow]]:
    """The splits, and what every run's methods lead those of the first run by, row by row."""
    first, others = runs[0], runs[1:]
    splits = [split for split in ordered_splits(set(first.splits)) if split != "val"]
    rows = []
    for run in others if first.metric == "accuracy" else ():
        differing = differing_splits([run, first])
        for method in first.methods:
            found = [
                None if split in differing else _lead(run, first, method.name, split)
                for split in splits
            ]
            if any(found):
                rows.append(LeadRow(method.label, f"{run.name} minus {first.name}", found))
    kept = [s for i, s in enumerate(splits) if any(row.leads[i] for row in rows)]
    picked = [splits.index(split) for split in kept]
    return kept, [replace(row, leads=[row.leads[i] for i in picked]) for row in rows]


def _lead(run: Run, first: Run, method: str, split: str) -> Lead | None:
    right = [_right(r.folder / "predictions" / method / f"{split}.npz") for r in (run, first)]
    if right[0].keys() != right[1].keys() or not right[0]:
        return None
    difference = np.array([right[0][i] - right[1][i] for i in right[0]])
    low, high = mean_intervals(difference[None])[0].tolist()
    text = f"{points(low)} to {points(high)}"
    return Lead(points(float(difference.mean())), text, not low <= 0 <= high)


def _right(file: Path) -> Mapping[str, float]:
    """Whether each sample was predicted right (1.0) or wrong, by its id."""
    if not file.is_file():
        return {}
    found = read_predictions(file)
    right = (found.scores.argmax(axis=1) == found.labels).astype(float)
    return dict(zip(found.ids.tolist(), right.tolist(), strict=True))
