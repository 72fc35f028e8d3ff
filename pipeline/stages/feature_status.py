"""How far a run's features are: marks and leases tell it from any machine, events the pace."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.planner.units import seconds_text
from pipeline.runs import RunFolder
from pipeline.stages.featurize import STAGE
from pipeline.store import FeatureStore
from pipeline.store.features import STORE
from pipeline.store.lease import live_leases
from pipeline.store.place import Location, place_at

RATE_WINDOW = 100
"""Shards whose times give the current rate; with fewer it counts from the stage's start."""

Events = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    """One line of the status: a stage, how far it is, and what to know of it."""

    stage: str
    state: str
    detail: str = ""


def feature_rows(folder: RunFolder, events: Events, running: bool) -> list[Row]:
    """One row for all features with their pace, one for each split."""
    stores = folder.feature_stores()
    if not stores:
        return [Row(STAGE, "waiting" if running else "missing")]
    current = last_start(events)
    failed = _failed_shards(current)
    counts: dict[str, ShardCounts] = {}
    rows = []
    for name, location in stores.items():
        if place_at(location).size(STORE) is None:
            state, detail = _absent(location, current, running, failed.get(name, {}))
        else:
            counts[name] = ShardCounts.of(FeatureStore.open(location), failed.get(name, {}))
            state, detail = counts[name].state(running), str(counts[name])
        rows.append(Row(f"{STAGE} {name}", state, detail))
    states = {row.state for row in rows}
    first = ("unseen", "running", "failed", "waiting", "missing", "done")
    overall = next(state for state in first if state in states)
    unknown = len(stores) - len(counts)
    return [Row(STAGE, overall, _progress(list(counts.values()), unknown, current, running)), *rows]


@dataclass(frozen=True)
class ShardCounts:
    """How far one split's features are, over every job that works on them."""

    rows: int
    """Samples of a shard."""
    total: int
    missing: int
    """Shards without a done mark."""
    missing_samples: int
    """Samples of these."""
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
            missing_samples=sum(s.stop - s.start for s in map(store.samples, missing)),
            running=tuple(h.host for s in missing if (h := leases.get(f"{s:05d}")) is not None),
            failed={shard: error for shard, error in failed.items() if shard in missing},
        )

    def state(self, running: bool) -> str:
        """One word for the table, where ``running`` says whether the run itself is."""
        if self.missing == 0:
            return "done"
        if self.running:
            return "running"
        if running:
            return "waiting"
        return "failed" if self.failed else "missing"

    def __str__(self) -> str:
        text = f"{self.total - self.missing} of {self.total} shards of {self.rows} rows"
        if self.running:
            hosts = ", ".join(f"{n} on {host}" for host, n in Counter(self.running).items())
            text += f", {len(self.running)} running ({hosts})"
        return ", ".join([text, *_told(self.failed)])


def last_start(events: Events) -> Events:
    """The events since the run was started for the last time."""
    starts = [i for i, event in enumerate(events) if event["event"] == "run_started"]
    return events[starts[-1] if starts else 0 :]


def _told(failed: Mapping[int, str]) -> list[str]:
    return [f"shard {shard} failed: {error}" for shard, error in failed.items()]


def _absent(
    location: Location, current: Events, running: bool, failed: Mapping[int, str]
) -> tuple[str, str]:
    """A store that is not there: not begun, given up at its first rows, or not seen from here."""
    if failed and not running:
        return "failed", ", ".join(_told(failed))
    if any(e["event"] == "run_done" or e.get("stage") in (STAGE, "kernel") for e in current):
        return "unseen", f"{location} is not seen from here, or was removed"
    return "waiting" if running else "missing", str(location)


def _failed_shards(current: Events) -> dict[str, dict[int, str]]:
    """What the last start of the run gave up, by split."""
    failed: dict[str, dict[int, str]] = {}
    for event in current:
        if event["event"] == "shard_failed":
            failed.setdefault(event["split"], {})[event["shard"]] = event["error"]
    return failed


def _progress(counts: Sequence[ShardCounts], unknown: int, current: Events, running: bool) -> str:
    """Shards of all splits, the rate of this run's workers, and what it leaves to wait."""
    total, missing = sum(c.total for c in counts), sum(c.missing for c in counts)
    text = f"{total - missing} of {total} shards"
    if unknown:
        return f"{text} in {len(counts)} of {len(counts) + unknown} splits, the others come next"
    if missing == 0:
        return text
    done, began = _shards_done(current)
    if not done:
        why = "no shard was done since this start" if running else "nothing was done by this run"
        return f"{text}, no rate or time left yet: {why}"
    rate = _rate(done, began)
    left = seconds_text(sum(c.missing_samples for c in counts) / rate)
    text += f", {rate:.3g} samples/s, {left} " + ("left" if running else "left when it runs again")
    return text + _waiting(done)


def _shards_done(current: Events) -> tuple[Events, str | None]:
    """The last shards that this start has done, and when the first of them was begun."""
    began = [e["time"] for e in current if (e["event"], e.get("stage")) == ("stage_started", STAGE)]
    done = [e for e in current if e["event"] == "shard_done"]
    if len(done) > RATE_WINDOW:
        return done[-RATE_WINDOW:], done[-RATE_WINDOW - 1]["time"]
    return done, began[0] if began else None


def _rate(done: Events, began: str | None) -> float:
    """Samples a second; workers finish together, so it counts from before the first shard."""
    first = datetime.fromisoformat(began or done[0]["time"]).astimezone(UTC)
    last = datetime.fromisoformat(done[-1]["time"]).astimezone(UTC)
    # Times have whole seconds.
    return float(sum(e["rows"] for e in done)) / max((last - first).total_seconds(), 1.0)


def _waiting(done: Events) -> str:
    """How much of their time the workers waited for samples, and how many were ready for them."""
    share = sum(e.get("waited_seconds", 0.0) for e in done) / max(
        sum(e["seconds"] for e in done), 1e-9
    )
    ready = sum(e.get("batches_ready", 0.0) for e in done) / len(done)
    return f", {share:.0%} of it waiting for samples ({ready:.1f} batches ready)"
