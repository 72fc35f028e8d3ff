"""Jobs that want the same features at once, on folders and on an object store."""

import pytest
from small_runs import events, run, start

from pipeline.artefact import read_json
from pipeline.runs import RunFolder
from pipeline.store import FeatureStore

MANY_SHARDS = "benchmark.limit={train: 400, val: 60, id_test: 80}"


def shards_done(folder):
    return [(event["split"], event["shard"]) for event in events(folder, "shard_done")]


def test_two_jobs_share_the_work_and_never_do_a_shard_twice(tmp_path):
    folders = [RunFolder(tmp_path / name) for name in ("one", "two")]
    jobs = [start(folder.path, tmp_path / "cache", MANY_SHARDS) for folder in folders]
    for job in jobs:
        output, _ = job.communicate(timeout=240)
        assert job.returncode == 0, output
    done = shards_done(folders[0]) + shards_done(folders[1])
    assert len(done) == len(set(done))
    total = 0
    for entry in read_json(folders[0].features).values():
        store = FeatureStore.open(entry["store"])
        store.verify()
        total += store.shards
    assert len(done) == total
    assert folders[0].metrics.read_bytes() == folders[1].metrics.read_bytes()


def test_a_run_on_an_object_store_has_the_same_metrics(bucket, undisturbed, tmp_path):
    pytest.importorskip("obstore")
    folder = run(tmp_path / "run", f"{bucket}/cache")
    assert folder.metrics.read_bytes() == undisturbed.metrics.read_bytes()
    assert all(e["store"].startswith(bucket) for e in read_json(folder.features).values())
    run(tmp_path / "again", f"{bucket}/cache")
    assert not shards_done(RunFolder(tmp_path / "again"))
