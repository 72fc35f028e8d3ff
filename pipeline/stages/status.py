"""What of a run is done, running or missing: read from marks, so it works from any machine."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
from rich.markup import escape
from rich.table import Table

from pipeline.artefact import PROVENANCE, digest, read_json
from pipeline.runs import RunFolder
from pipeline.store import FeatureStore
from pipeline.store.features import STORE
from pipeline.store.lease import live_leases
from pipeline.store.place import as_location, place_at
from pipeline.types import InputError

RATE_WINDOW = 20
"""Shards whose times give the current rate."""


@dataclass(frozen=True)
class Row:
    """One line of the status: a stage, how far it is, and what to know of it."""

    stage: str
    state: str
    detail: str = ""


def run_status(folder: RunFolder) -> list[Row]:
    """One row for the run, one for each split's features, one for each later artefact."""
    running = folder.path.is_dir() and _is_locked(folder)
    if not folder.config.is_file():
        if running:
            return [Row("run", "running", "reading the benchmark and planning")]
        raise InputError(f"{folder.path} is no run folder: it has no config.yaml.")
    events = read_events(folder.events)
    rows = [Row("run", _run_state(folder, running), _last(events))]
    timing = read_json(folder.timing) if folder.timing.is_file() else {}
    rows += _feature_rows(folder, events, running)
    features = _feature_digests(folder)
    kernel = _artefact_row("kernel", folder.kernel, {"features": features}, timing)
    rows.append(kernel)
    made_from = read_json(folder.kernel / PROVENANCE) if kernel.state == "done" else None
    inputs = {"features": features, "kernel": digest(made_from)}
    for path in sorted((folder.path / "fit").glob("*")):
        if path.is_dir() and not path.name.endswith(".partial"):
            rows.append(_artefact_row(f"fit {path.name}", path, inputs, timing))
    done = folder.metrics.is_file()
    rows.append(Row("metrics", "done" if done else "missing", str(folder.metrics) if done else ""))
    return rows


def status_table(folder: RunFolder) -> Table:
    """The status as a table for the terminal."""
    table = Table(title=str(folder.path), title_justify="left")
    for name in ("stage", "state", "detail"):
        table.add_column(name)
    styles = {
        "done": "green",
        "running": "yellow",
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
    lock = filelock.FileLock(folder.path / ".lock", blocking=False)
    try:
        with lock:
            return False
    except filelock.Timeout:
        return True


def _last(events: list[dict[str, Any]]) -> str:
    if not events:
        return ""
    last = events[-1]
    return f"last event {last['time']}: {last['event']}" + (
        f": {last['error']}" if last["event"] == "run_failed" else ""
    )


def _feature_rows(folder: RunFolder, events: list[dict[str, Any]], running: bool) -> list[Row]:
    if not folder.features.is_file():
        return [Row("features", "missing")]
    failed = _failed_shards(events)
    rows = []
    for name, entry in read_json(folder.features).items():
        location = as_location(entry["store"])
        if place_at(location).size(STORE) is None:
            rows.append(Row(f"features {name}", "missing", str(location)))
            continue
        store = FeatureStore.open(location)
        shards = ShardCounts.of(store, failed.get(name, {}))
        state = shards.state(running)
        rows.append(Row(f"features {name}", state, str(shards) + _pace(events, name, shards)))
    return rows


@dataclass(frozen=True)
class ShardCounts:
    """How far one split's features are, over every job that works on them."""

    rows: int
    """Samples of a shard."""
    total: int
    missing: int
    """Shards without a done mark."""
    running: tuple[str, ...]
    """The machines that make one at this moment, one entry a shard."""
    failed: Mapping[int, str]
    """Missing shards that ended the run, and why."""

    @classmethod
    def of(cls, store: FeatureStore, failed: Mapping[int, str]) -> "ShardCounts":
        """The counts from a store's marks and leases."""
        missing = store.missing_rows()
        leases = live_leases(store.place) if missing else {}
        return cls(
            rows=store.facts.rows_per_shard,
            total=store.shards,
            missing=len(missing),
            running=tuple(h.host for s in missing if (h := leases.get(f"{s:05d}")) is not None),
            failed={shard: error for shard, error in failed.items() if shard in missing},
        )

    def state(self, running: bool) -> str:
        """One word for the table."""
        if self.missing == 0:
            return "done"
        if running or self.running:
            return "running"
        return "failed" if self.failed else "missing"

    def __str__(self) -> str:
        text = f"{self.total - self.missing} of {self.total} shards of {self.rows} rows"
        if self.running:
            hosts = ", ".join(f"{n} on {host}" for host, n in Counter(self.running).items())
            text += f", {len(self.running)} running ({hosts})"
        for shard, error in self.failed.items():
            text += f", shard {shard} failed: {error}"
        return text


def _failed_shards(events: list[dict[str, Any]]) -> dict[str, dict[int, str]]:
    """What the last start of the run gave up, by split."""
    starts = [i for i, event in enumerate(events) if event["event"] == "run_started"]
    failed: dict[str, dict[int, str]] = {}
    for event in events[starts[-1] if starts else 0 :]:
        if event["event"] == "shard_failed":
            failed.setdefault(event["split"], {})[event["shard"]] = event["error"]
    return failed


def _pace(events: list[dict[str, Any]], split: str, shards: ShardCounts) -> str:
    """The rate of the last shards, over all workers of this run, and what it leaves to wait."""
    done = [e for e in events if e["event"] == "shard_done" and e["split"] == split]
    done = done[-RATE_WINDOW:]
    if shards.missing == 0 or len(done) < 2:
        return ""
    first, last = (datetime.fromisoformat(done[i]["time"]).astimezone(UTC) for i in (0, -1))
    # Times have whole seconds: many shards within one cannot be told apart.
    seconds = max((last - first).total_seconds(), 1.0) / (len(done) - 1)
    left = seconds * shards.missing / 60
    pace = f", {shards.rows / seconds:.1f} samples/s, {left:.1f} min left"
    return pace + _waiting(done)


def _waiting(done: list[dict[str, Any]]) -> str:
    """How much of their time the workers waited for samples, and how many were ready for them."""
    share = sum(e.get("waited_seconds", 0.0) for e in done) / max(
        sum(e["seconds"] for e in done), 1e-9
    )
    ready = sum(e.get("batches_ready", 0.0) for e in done) / len(done)
    return f", {share:.0%} of it waiting for samples ({ready:.1f} batches ready)"


def _feature_digests(folder: RunFolder) -> dict[str, str]:
    """The features of this run, by what they were made from."""
    if not folder.features.is_file():
        return {}
    entries = read_json(folder.features).items()
    return {name: digest(entry["provenance"]) for name, entry in entries}


def _artefact_row(
    stage: str, path: Path, inputs: Mapping[str, Any], timing: Mapping[str, Any]
) -> Row:
    """Done, unless it was made from other inputs: an earlier config's, to be replaced."""
    if not (path / PROVENANCE).is_file():
        return Row(stage, "missing")
    made_from = read_json(path / PROVENANCE)
    changed = [name for name, value in inputs.items() if made_from.get(name, value) != value]
    if changed:
        return Row(stage, "stale", f"made from other {', '.join(changed)}")
    return Row(stage, "done", str(path) + _throughput(timing.get(stage, {})))


def _throughput(facts: Mapping[str, Any]) -> str:
    """The seconds that a stage took, and how fast it read where it says how much."""
    if not facts.get("seconds"):
        return ""
    read = facts.get("bytes_read", 0) / facts["seconds"] / 2**20
    return f", {facts['seconds']:.1f} s" + (f", {read:,.0f} MiB/s" if read else "")
