"""Which shards are handed out, and what status says of them."""

from types import SimpleNamespace

from small_stores import store_of, write

from pipeline.stages.feature_status import ShardCounts
from pipeline.stages.shards import _free_blocks
from pipeline.store.lease import take_lease


def test_larger_shards_go_out_first_and_those_of_other_jobs_not_at_all(tmp_path):
    stores = {"train": store_of(tmp_path / "a", 10, 4), "val": store_of(tmp_path / "b", 6, 6)}
    jobs = [
        SimpleNamespace(split=SimpleNamespace(name=name), first_block=first)
        for name, first in (("train", 0), ("val", 3))
    ]
    spec = SimpleNamespace(jobs=jobs, owner="me")
    missing = {name: store.missing_rows() for name, store in stores.items()}
    assert _free_blocks(spec, stores, missing) == [3, 0, 1, 2]  # 6, 4, 4, 2 samples
    with take_lease(stores["train"].place, "00001", "another"):
        assert _free_blocks(spec, stores, missing) == [3, 0, 2]
    with take_lease(stores["train"].place, "00001", "me"):
        assert _free_blocks(spec, stores, missing) == [3, 0, 1, 2]


def test_status_counts_done_running_missing_and_failed_shards(tmp_path):
    store = store_of(tmp_path / "a", 16, 4)
    write(store, 0)
    with take_lease(store.place, "00001", "any job"):
        counts = ShardCounts.of(store, {0: "done since", 2: "sample x: it broke"})
        assert counts.state(running=False) == "running"
        assert "1 of 4 shards of 4 rows, 1 running (1 on " in str(counts)
    assert "shard 2 failed: sample x: it broke" in str(counts)
    assert "done since" not in str(counts)
    assert ShardCounts.of(store, {2: "it broke"}).state(running=False) == "failed"
    assert ShardCounts.of(store, {}).state(running=False) == "missing"
    for shard in (1, 2, 3):
        write(store, shard)
    assert ShardCounts.of(store, {}).state(running=False) == "done"
