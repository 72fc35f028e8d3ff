"""Features go by the stated rule: only older revisions', only what no kept one uses."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import filelock
import pytest
from registries import save_weights, small_model, write_registry

from pipeline.artefact import PROVENANCE
from pipeline.history import Entry, append_entry, read_history
from pipeline.schedule.options import RetentionOptions, load_registry
from pipeline.schedule.refeaturize import HISTORY
from pipeline.schedule.retention import collect, expired
from pipeline.store.features import STORE
from pipeline.store.lease import take_lease
from pipeline.store.place import place_at
from pipeline.types import InputError

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def entry(root: Path, revision: str, age: float, *, model: str = "a", shared: str = "") -> Entry:
    """A line of history whose store, kernel and report lie below ``root``."""
    store = root / "cache" / (shared or f"features-{model}-{revision}")
    run = f"runs/{model}/{revision}"
    for folder, mark in ((store, STORE), (root / run / "kernel", PROVENANCE)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / mark).write_bytes(bytes(100))
    (root / run / "report.html").touch()
    return Entry(
        model=model,
        benchmark="digits",
        sketch="uniform",
        revision=revision,
        source="a.pth",
        key=revision,
        date=(NOW - timedelta(days=age)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        run=run,
        metric="accuracy",
        id=0.5,
        id_stderr=0.1,
        ood=None,
        ood_stderr=None,
        scores={},
        seconds=1.0,
        bytes=100,
        stores={"train": str(store)},
    )


def names(found) -> set[str]:
    return {f"{item.path.parent.name}/{item.path.name}" for item in found}


def test_the_newest_revisions_of_every_task_stay(tmp_path):
    history = [entry(tmp_path, f"r{i}", 10 - i) for i in range(4)]
    history.append(entry(tmp_path, "only", 100, model="b"))
    found = expired(history, RetentionOptions(revisions=2), tmp_path, NOW)
    assert names(found) == {
        "cache/features-a-r0",
        "cache/features-a-r1",
        "r0/kernel",
        "r1/kernel",
    }
    assert all(item.bytes == 100 for item in found)


def test_what_is_no_feature_store_or_leads_to_another_stays(tmp_path):
    history = [entry(tmp_path, f"r{i}", 10 - i) for i in range(4)]
    (tmp_path / "cache/features-a-r0" / STORE).unlink()
    (tmp_path / "cache/features-a-r1").rename(tmp_path / "cache/theirs")
    (tmp_path / "cache/features-a-r1").symlink_to(tmp_path / "cache/theirs")
    found = expired(history, RetentionOptions(revisions=2), tmp_path, NOW)
    assert names(found) == {"r0/kernel", "r1/kernel"}


def test_older_revisions_stay_while_they_are_young(tmp_path):
    history = [entry(tmp_path, f"r{i}", age) for i, age in enumerate((40, 20, 1))]
    found = expired(history, RetentionOptions(revisions=1, days=30), tmp_path, NOW)
    assert names(found) == {"cache/features-a-r0", "r0/kernel"}


def test_features_that_a_kept_revision_shares_stay(tmp_path):
    history = [
        entry(tmp_path, "r0", 3, shared="features-x"),
        entry(tmp_path, "r1", 2),
        entry(tmp_path, "r2", 1, shared="features-x"),
    ]
    found = expired(history, RetentionOptions(revisions=1), tmp_path, NOW)
    assert names(found) == {"cache/features-a-r1", "r0/kernel", "r1/kernel"}


def test_a_revision_that_came_back_counts_as_new(tmp_path):
    history = [entry(tmp_path, name, 3) for name in ("r0", "r1", "r0")]
    found = expired(history, RetentionOptions(revisions=1), tmp_path, NOW)
    assert names(found) == {"cache/features-a-r1", "r1/kernel"}


@pytest.fixture
def registry(tmp_path):
    path = write_registry(
        tmp_path,
        {"a": small_model(save_weights(tmp_path / "a.pth", 0))},
        retention={"revisions": 1},
    )
    for i in range(3):
        append_entry(tmp_path / HISTORY, entry(tmp_path, f"r{i}", 3 - i))
    # What another run keeps in the same cache is none of the registry's.
    (tmp_path / "cache/features-foreign").mkdir()
    return load_registry(path)


def test_a_dry_run_names_what_the_real_one_removes_and_removes_nothing(registry, tmp_path):
    would = collect(registry, tmp_path, dry_run=True)
    assert all(item.path.is_dir() for item in would)
    removed = collect(registry, tmp_path, dry_run=False)
    assert names(removed) == names(would) != set()
    assert not any(item.path.exists() for item in removed)
    left = {path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()}
    assert left == {"features-a-r2", "features-foreign"}
    assert all(
        (tmp_path / e.run / "report.html").exists() for e in read_history(tmp_path / HISTORY)
    )
    assert collect(registry, tmp_path, dry_run=False) == []


def test_what_a_killed_removal_left_is_removed_by_the_next(registry, tmp_path):
    cache = tmp_path / "cache"
    (cache / "features-a-r0").rename(cache / "features-a-r0.expired")  # killed before the removal
    (cache / "features-a-r0.expired" / STORE).unlink()  # or in its middle
    (cache / "features-a-r1.expired/features").mkdir(parents=True)  # made anew since
    would = collect(registry, tmp_path, dry_run=True)
    removed = collect(registry, tmp_path, dry_run=False)
    assert names(removed) == names(would) >= {"cache/features-a-r0.expired", "cache/features-a-r1"}
    left = {path.name for path in cache.iterdir() if path.is_dir()}
    assert left == {"features-a-r2", "features-foreign"}
    assert collect(registry, tmp_path, dry_run=False) == []


def test_nothing_goes_while_a_scheduler_is_at_work(registry, tmp_path):
    lock = tmp_path / "runs/a/digits/uniform/.lock"
    lock.parent.mkdir(parents=True)
    with filelock.FileLock(lock), pytest.raises(InputError, match="a scheduler is at"):
        collect(registry, tmp_path, dry_run=False)
    assert collect(registry, tmp_path, dry_run=True)


def test_a_store_that_a_run_is_writing_stays(registry, tmp_path):
    store = tmp_path / "cache/features-a-r0"
    lease = take_lease(place_at(store), "00000", "another run")
    assert lease is not None
    with lease:
        collect(registry, tmp_path, dry_run=False)
        assert store.is_dir()


@pytest.mark.parametrize(
    "named",
    [
        {"stores": {"train": "/etc"}},
        {"stores": {"train": "cache/../x/features-a"}},
        {"run": "../.."},
    ],
)
def test_a_history_that_names_other_folders_removes_nothing(tmp_path, named):
    history = [replace(entry(tmp_path, "r0", 9), **named), entry(tmp_path, "r1", 1)]
    with pytest.raises(InputError, match="no features and no kernel of this schedule"):
        expired(history, RetentionOptions(revisions=1), tmp_path, NOW)
