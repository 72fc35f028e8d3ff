"""How far features are, and how fast: what ``entk status`` says of them."""

import shutil

import pytest
from small_stores import store_of, write

from pipeline.artefact import write_json
from pipeline.runs import RunFolder
from pipeline.stages.feature_status import feature_rows
from pipeline.stages.status import run_status
from pipeline.store import FeatureStore
from pipeline.types import InputError

STARTED = {"event": "run_started", "time": "2026-01-01T00:00:00Z"}
BEGUN = {"event": "stage_started", "stage": "features", "time": "2026-01-01T00:00:10Z"}


def shard_done(second, rows=4):
    time = f"2026-01-01T00:00:{second:02d}Z"
    facts = {"seconds": 10.0, "waited_seconds": 1.0, "batches_ready": 1.0}
    return {"event": "shard_done", "time": time, "rows": rows, **facts}


@pytest.fixture
def folder(tmp_path):
    """A run with two splits of three and one shards."""
    run = RunFolder(tmp_path / "work" / "runs" / "x")
    stores = {"train": tmp_path / "work" / "cache" / "a", "val": tmp_path / "work" / "cache" / "b"}
    run.path.mkdir(parents=True)
    write_json(run.features, {name: run.entry_of(path) for name, path in stores.items()})
    for path, n in zip(stores.values(), (12, 4), strict=True):
        store_of(path, n, 4)
    return run


def detail(folder, events, running=True):
    return feature_rows(folder, events, running)[0].detail


def test_rate_and_time_left_come_with_the_first_shard_of_any_split(folder):
    assert "no rate or time left yet: no shard was done" in detail(folder, [STARTED, BEGUN])
    # Two workers whose first shards end together: 8 samples in 20 s, 16 samples to go.
    events = [STARTED, BEGUN, shard_done(30), shard_done(30)]
    assert "0 of 4 shards, 0.4 samples/s, 40 s left, 10% of it waiting" in detail(folder, events)
    assert "40 s left when it runs again" in detail(folder, events, running=False)


def test_an_earlier_start_does_not_slow_the_rate(folder):
    earlier = [STARTED, BEGUN, shard_done(11)]
    assert "no rate" in detail(folder, [*earlier, STARTED])
    assert "0.4 samples/s" in detail(folder, [*earlier, STARTED, BEGUN, shard_done(20)])


def test_a_working_folder_that_has_moved_is_still_read(folder, tmp_path):
    (tmp_path / "work").rename(tmp_path / "elsewhere")
    moved = RunFolder(tmp_path / "elsewhere" / "runs" / "x")
    assert {row.state for row in feature_rows(moved, [STARTED], running=True)} == {"waiting"}
    shutil.rmtree(tmp_path / "elsewhere" / "cache")
    rows = feature_rows(moved, [STARTED, BEGUN], running=False)
    assert rows[0].state == "unseen"
    assert "is not seen from here" in rows[1].detail


def test_features_are_done_with_their_last_shard(folder):
    for location in folder.feature_stores().values():
        store = FeatureStore.open(location)
        for shard in range(store.shards):
            write(store, shard)
    rows = feature_rows(folder, [STARTED], running=False)
    assert {row.state for row in rows} == {"done"}
    assert rows[0].detail == "4 of 4 shards"


def test_looking_at_a_folder_of_something_else_leaves_nothing_there(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    with pytest.raises(InputError, match=r"no run folder: it has no events\.jsonl"):
        run_status(RunFolder(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]
