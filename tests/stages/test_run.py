import json
import shutil
import signal

import numpy as np
import pytest
from small_runs import events, run, start, stores, wait_for

from pipeline.artefact import CorruptArtefactError, read_json
from pipeline.runs import RunFolder
from pipeline.stages.status import run_status
from pipeline.store import FeatureStore
from pipeline.types import InputError


def test_a_run_fills_the_whole_table(undisturbed):
    metrics = read_json(undisturbed.metrics)
    assert metrics["selection"] == {"split": "val", "metric": "accuracy"}
    assert set(metrics["methods"]) == {"entk", "entk_early_stopping", "linear_probe_ridge"}
    for method in metrics["methods"].values():
        assert set(method["splits"]) >= {"val", "id_test", "ood_test"}
        for split in method["splits"].values():
            assert split["n"] > 0
            assert all(np.isfinite(value) for value in split.values())
    assert metrics["methods"]["entk"]["selected"]["stopping"] == "converged"
    assert metrics["methods"]["entk"]["splits"]["id_test"]["accuracy"] > 0.6
    assert (undisturbed.path / "report.html").stat().st_size > 10_000


def test_every_split_has_a_manifest_with_hashes_and_they_share_none(undisturbed):
    hashes = {}
    for path in undisturbed.manifests.glob("*.csv"):
        lines = path.read_text().splitlines()
        assert lines[0] == "id,label,group,sha256"
        hashes[path.stem] = {line.rpartition(",")[2] for line in lines[1:]}
    assert {"train", "val", "id_test", "ood_test"} <= set(hashes)
    assert not hashes["train"] & (hashes["val"] | hashes["id_test"] | hashes["ood_test"])


def test_metrics_hold_no_timing(undisturbed):
    text = undisturbed.metrics.read_text()
    assert "seconds" not in text
    assert "kernel" in read_json(undisturbed.timing)


def test_the_same_config_again_computes_nothing(undisturbed):
    before = undisturbed.metrics.read_bytes()
    shards = len(events(undisturbed, "shard_done"))
    stages = len(events(undisturbed, "stage_started"))
    run(undisturbed.path, undisturbed.path.parent / "cache")
    assert len(events(undisturbed, "shard_done")) == shards
    assert len(events(undisturbed, "stage_started")) == stages
    assert undisturbed.metrics.read_bytes() == before


def test_a_new_run_shares_the_features_of_an_older_one(undisturbed, tmp_path):
    other = run(tmp_path / "run", undisturbed.path.parent / "cache")
    assert not events(other, "shard_done")
    assert other.metrics.read_bytes() == undisturbed.metrics.read_bytes()


@pytest.mark.parametrize(
    "override",
    [
        "sketch.seed=1",
        pytest.param("model.head.seed=1", marks=pytest.mark.slow),
        pytest.param("benchmark.preprocess.mean=[0.4]", marks=pytest.mark.slow),
        pytest.param("pretrain.seed=1", marks=pytest.mark.slow),
    ],
)
def test_what_determines_features_makes_new_ones(undisturbed, tmp_path, override):
    other = run(tmp_path / "run", undisturbed.path.parent / "cache", override)
    assert not set(stores(other).values()) & set(stores(undisturbed).values())
    assert events(other, "shard_done")


def test_batch_size_and_solver_do_not_make_new_features(undisturbed, tmp_path):
    other = run(
        tmp_path / "run",
        undisturbed.path.parent / "cache",
        "features.batch_size=7",
        "solver.kind=cg",
    )
    assert stores(other) == stores(undisturbed)
    assert not events(other, "shard_done")


@pytest.mark.slow
def test_a_changed_config_in_the_same_folder_replaces_what_depends_on_it(undisturbed, tmp_path):
    folder = run(tmp_path / "run", undisturbed.path.parent / "cache")
    changed = run(tmp_path / "run", undisturbed.path.parent / "cache", "solver.ridge=10.0")
    assert read_json(changed.metrics)["methods"]["entk"]["selected"]["ridge"] == pytest.approx(10.0)
    again = run(tmp_path / "run", undisturbed.path.parent / "cache")
    assert again.metrics.read_bytes() == undisturbed.metrics.read_bytes()
    assert folder.path == again.path


def test_a_run_repeats_from_its_own_resolved_config(undisturbed, tmp_path):
    from pipeline.registry import load_config
    from pipeline.stages.job import Silence
    from pipeline.stages.run import run_job

    folder = RunFolder(tmp_path / "run")
    run_job(load_config(undisturbed.config), folder, Silence())
    assert folder.metrics.read_bytes() == undisturbed.metrics.read_bytes()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("pretrain", marks=pytest.mark.slow),
        "features",
        pytest.param("kernel", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_any_moment_is_finished_by_the_same_command(undisturbed, tmp_path, moment):
    folder = RunFolder(tmp_path / "run")
    process = start(folder.path, tmp_path / "cache")
    seen = {
        "pretrain": lambda: folder.events.is_file(),
        "features": lambda: folder.events.is_file() and events(folder, "shard_done"),
        "kernel": lambda: (
            folder.events.is_file()
            and [e for e in events(folder, "stage_started") if e["stage"] == "kernel"]
        ),
    }
    wait_for(seen[moment])
    process.send_signal(signal.SIGKILL)
    process.wait()
    done_before = len(events(folder, "shard_done"))
    finished = start(folder.path, tmp_path / "cache")
    output, _ = finished.communicate(timeout=120)
    assert finished.returncode == 0, output
    assert folder.metrics.read_bytes() == undisturbed.metrics.read_bytes()
    compared = [run.comparisons / "comparisons.json" for run in (folder, undisturbed)]
    assert compared[0].read_bytes() == compared[1].read_bytes()
    total = sum(FeatureStore.open(path).shards for path in stores(folder).values())
    # The shard in work when the process died may have been marked without its event.
    assert total - 1 <= len(events(folder, "shard_done")) <= total
    assert len(events(folder, "shard_done")) >= done_before


def test_damaged_shard_bytes_are_refused_by_name(tmp_path):
    folder = run(tmp_path / "run", tmp_path / "cache")
    path = FeatureStore.open(stores(folder)["train"]).shard_path(0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CorruptArtefactError, match="shard 0"):
        run(tmp_path / "other", tmp_path / "cache")


def test_a_second_process_in_the_same_folder_is_refused(undisturbed, tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        process = start(folder.path, tmp_path / "cache")
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "another process is running" in output
    assert "Traceback" not in output


def test_status_says_where_in_the_runs_folder_an_artefact_lies(undisturbed):
    details = {row.stage: row.detail for row in run_status(undisturbed)}
    assert details["kernel"].split(",")[0] == "kernel"
    assert details["fit entk"].split(",")[0] == "fit/entk"
    assert details["metrics"] == "metrics.json"


def test_status_tells_done_from_interrupted(undisturbed, tmp_path):
    rows = {row.stage: row.state for row in run_status(undisturbed)}
    assert rows["run"] == "done"
    assert rows["features train"] == "done"
    assert rows["kernel"] == "done"
    assert rows["metrics"] == "done"
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_config({"name": "x"})
    folder.record_event("run_started")
    assert {row.stage: row.state for row in run_status(folder)}["run"] == "interrupted"


@pytest.mark.parametrize(
    "lost", ["fit/linear_probe_ridge", "predictions/linear_probe_ridge", "predictions/entk"]
)
def test_what_is_lost_from_a_finished_run_is_made_again(undisturbed, tmp_path, lost):
    shutil.copytree(undisturbed.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / lost)
    again = run(tmp_path / "run", undisturbed.path.parent / "cache")
    assert again.metrics.read_bytes() == undisturbed.metrics.read_bytes()


def test_a_kernel_that_was_cut_is_made_again(undisturbed, tmp_path):
    shutil.copytree(undisturbed.path, tmp_path / "run")
    for name in ("fit", "predictions"):
        shutil.rmtree(tmp_path / "run" / name)
    file = tmp_path / "run" / "kernel" / "train.npy"
    file.write_bytes(file.read_bytes()[:-100])
    again = run(tmp_path / "run", undisturbed.path.parent / "cache")
    assert again.metrics.read_bytes() == undisturbed.metrics.read_bytes()


def test_a_refused_config_leaves_a_finished_run_as_it_was(undisturbed, tmp_path):
    folder = run(tmp_path / "run", undisturbed.path.parent / "cache")
    before = {file: file.read_bytes() for file in folder.path.glob("*.*") if file.is_file()}
    with pytest.raises(InputError, match=r"limits\.memory"):
        run(folder.path, undisturbed.path.parent / "cache", "limits.memory=1MiB", "sketch.seed=7")
    assert {file: file.read_bytes() for file in before} == before


def test_results_of_another_config_go_before_work_starts(undisturbed, tmp_path, monkeypatch):
    folder = run(tmp_path / "run", undisturbed.path.parent / "cache")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.stages.run.build_kernel", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(folder.path, undisturbed.path.parent / "cache", "sketch.seed=7")
    rows = {row.stage: row.state for row in run_status(folder)}
    assert rows["run"] == "interrupted"
    assert rows["features train"] == "done"
    assert rows["kernel"] == rows["fit entk"] == "stale"
    assert rows["metrics"] == "missing"
    assert not (folder.path / "report.html").exists()


def test_a_run_that_still_plans_is_running(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        [row] = run_status(folder)
    assert row.state == "running"
    with pytest.raises(InputError, match="no run folder"):
        run_status(folder)


def test_metrics_json_is_plain_json_without_nan(undisturbed):
    json.loads(undisturbed.metrics.read_text(), parse_constant=lambda name: pytest.fail(name))
