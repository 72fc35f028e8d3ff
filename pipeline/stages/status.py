"""What of a run is done, running or missing: read from marks, so it works from any machine."""

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from pipeline.artefact import PROVENANCE, digest, read_json
from pipeline.runs import RunFolder
from pipeline.stages.feature_status import Row, feature_rows
from pipeline.types import InputError


def run_status(folder: RunFolder) -> list[Row]:
    """One row for the run, one for each split's features, one for each later artefact."""
    running = folder.path.is_dir() and _is_locked(folder)
    if not folder.config.is_file():
        if running:
            return [Row("run", "running", "reading the benchmark and planning")]
        raise InputError(f"{folder.path} is no run folder: it has no config.yaml.")
    events = read_events(folder.events)
    if not (running or events):
        raise InputError(f"{folder.path} is no run folder: it has no events.jsonl.")
    rows = [Row("run", _run_state(folder, running), _last(events))]
    timing = read_json(folder.timing) if folder.timing.is_file() else {}
    rows += feature_rows(folder, events, running)
    features = _feature_digests(folder)
    kernel = _artefact_row(folder, "kernel", folder.kernel, {"features": features}, timing)
    rows.append(kernel)
    made_from = read_json(folder.kernel / PROVENANCE) if kernel.state == "done" else None
    inputs = {"features": features, "kernel": digest(made_from)}
    for path in sorted((folder.path / "fit").glob("*")):
        if path.is_dir() and not path.name.endswith(".partial"):
            rows.append(_artefact_row(folder, f"fit {path.name}", path, inputs, timing))
    done = folder.metrics.is_file()
    rows.append(Row("metrics", "done" if done else "missing", folder.metrics.name if done else ""))
    return rows


def status_table(folder: RunFolder) -> Table:
    """The status as a table for the terminal."""
    table = Table(title=str(folder.path), title_justify="left")
    for name in ("stage", "state", "detail"):
        table.add_column(name)
    styles = {
        "done": "green",
        "running": "yellow",
        "waiting": "dim",
        "unseen": "red",
        "missing": "dim",
        "stale": "yellow",
        "failed": "red",
        "interrupted": "red",
    }
    for row in run_status(folder):
        style = styles.get(row.state.split()[0], "")
        state = f"[{style}]{row.state}[/]" if style else row.state
        table.add_row(row.stage, state, escape(row.detail))
    return table


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events so far; a line that is still being written is left out."""
    events = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events


def _run_state(folder: RunFolder, running: bool) -> str:
    if running:
        return "running"
    events = read_events(folder.events)
    ends = {"run_done": "done", "run_failed": "failed"}
    return ends.get(events[-1]["event"], "interrupted") if events else "interrupted"


def _is_locked(folder: RunFolder) -> bool:
    """Whether a process holds the folder; looking writes nothing."""
    try:
        with folder.lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _last(events: list[dict[str, Any]]) -> str:
    if not events:
        return ""
    last = events[-1]
    return f"last event {last['time']}: {last['event']}" + (
        f": {last['error']}" if last["event"] == "run_failed" else ""
    )


def _feature_digests(folder: RunFolder) -> dict[str, str]:
    """The features of this run, by what they were made from."""
    if not folder.features.is_file():
        return {}
    entries = read_json(folder.features).items()
    return {name: digest(entry["provenance"]) for name, entry in entries}


def _artefact_row(
    folder: RunFolder,
    stage: str,
    path: Path,
    inputs: Mapping[str, Any],
    timing: Mapping[str, Any],
) -> Row:
    """Done, unless it was made from other inputs: an earlier config's, to be replaced."""
    if not (path / PROVENANCE).is_file():
        return Row(stage, "missing")
    made_from = read_json(path / PROVENANCE)
    changed = [name for name, value in inputs.items() if made_from.get(name, value) != value]
    if changed:
        return Row(stage, "stale", f"made from other {', '.join(changed)}")
    place = path.relative_to(folder.path).as_posix()
    return Row(stage, "done", place + _throughput(timing.get(stage, {})))


def _throughput(facts: Mapping[str, Any]) -> str:
    """The seconds that a stage took, and how fast it read where it says how much."""
    if not facts.get("seconds"):
        return ""
    read = facts.get("bytes_read", 0) / facts["seconds"] / 2**20
    return f", {facts['seconds']:.1f} s" + (f", {read:,.0f} MiB/s" if read else "")
