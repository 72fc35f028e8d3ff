"""What goes wrong in a job's own work: each time a clear stop, and the same command continues."""

import shutil
import threading
from types import SimpleNamespace

import pytest
from small_runs import SMALL, events, run

from pipeline.artefact import FullDiskError
from pipeline.distributed.executor import BlockFailedError
from pipeline.runs import RunFolder
from pipeline.stages import loading
from pipeline.stages.shards import ShardFailedError
from pipeline.stages.status import run_status
from pipeline.store.folder_place import FolderPlace

QUICK_TIMEOUT = "executor={kind: local, workers: 1, threads: 1, decode_timeout: 1.0}"

AMONG_THE_FIRST, BEYOND = 3, 70
"""A training row of those that the store's scale comes from, and one that a shard meets first."""


def trouble(monkeypatch, meet, row):
    """Loading one training sample does what ``meet`` does."""
    loader = loading.batch_loader

    def troubled(options):
        load = loader(options)

        def load_rows(rows, batch):
            if rows.name == "train" and len(rows) > BEYOND:
                bad.add(rows.ids[row])
            if not bad.isdisjoint(rows.subset(batch).ids):
                meet()
            return load(rows, batch)

        return load_rows

    bad = set()
    monkeypatch.setattr(loading, "batch_loader", troubled)


def hang():
    threading.Event().wait(20)


def fail():
    raise ValueError("the decoder lost its way")


@pytest.mark.parametrize(
    ("cause", "advised"),
    [
        ("MemoryError:  (net.py:9)", True),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB (conv.py:1)", True),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory", True),
        ("its worker died: causes include: (1) the process was killed by the OOM killer", True),
        ("ValueError: the decoder lost its way", False),
    ],
)
def test_what_helps_against_too_little_memory_is_told(cause, advised):
    job = SimpleNamespace(split=SimpleNamespace(name="train"), batch_size=128, store="cache/x")
    message = str(ShardFailedError(3, job, BlockFailedError(7, 3, cause)))
    assert message.startswith(f"shard 3 of split train failed 3 times, the last time with: {cause}")
    assert ("a features.batch_size below 128" in message) == advised


@pytest.mark.parametrize("row", [AMONG_THE_FIRST, BEYOND])
@pytest.mark.parametrize(
    ("meet", "said"), [(hang, "nothing came within 1 s"), (fail, "the decoder lost its way")]
)
def test_a_shard_that_fails_three_times_is_named_with_its_sample_and_error(
    tmp_path, undisturbed, meet, said, row
):
    folder, cache = tmp_path / "run", tmp_path / "cache"
    with pytest.MonkeyPatch.context() as patch:
        trouble(patch, meet, row)
        message = rf"shard 0 of split train failed 3 times.*sample \S+ of split train: {said}"
        with pytest.raises(ShardFailedError, match=message):
            run(folder, cache, QUICK_TIMEOUT)
    rows = {row.stage: row for row in run_status(RunFolder(folder))}
    assert rows["run"].state == rows["features train"].state == "failed"
    assert said in rows["features train"].detail
    again = run(folder, cache, SMALL[-1])
    assert again.metrics.read_bytes() == undisturbed.metrics.read_bytes()
    assert len(events(again, "shard_retry")) == 2
    assert all(row.state == "done" for row in run_status(again))


def test_status_prints_errors_as_they_are(undisturbed, tmp_path, entk):
    shutil.copytree(undisturbed.path, tmp_path / "run")
    RunFolder(tmp_path / "run").record_event("run_failed", error="[/tmp/x] cannot be [bold]read")
    code, printed = entk("status", "run")
    assert code == 0
    assert "run_failed: [/tmp/x] cannot be [bold]read" in printed


def test_a_full_disk_stops_the_run_at_once_and_the_same_command_continues(tmp_path, undisturbed):
    folder, cache = tmp_path / "run", tmp_path / "cache"
    write = FolderPlace.write

    def full_at_the_second_shard(self, key, content):
        if key.startswith("features/c") and list(cache.glob("*/done/*.json")):
            raise FullDiskError(cache / key)
        write(self, key, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderPlace, "write", full_at_the_second_shard)
        with pytest.raises(FullDiskError, match="no space is left to write"):
            run(folder, cache)
    assert len(list(cache.glob("*/done/*.json"))) == 1
    row = run_status(RunFolder(folder))[0]
    assert (row.stage, row.state) == ("run", "failed")
    assert "no space is left to write" in row.detail
    again = run(folder, cache)
    assert again.metrics.read_bytes() == undisturbed.metrics.read_bytes()
    assert not events(again, "shard_retry")
