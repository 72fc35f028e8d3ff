"""A registry is scored cell by cell: only what is new, whatever becomes of the others."""

import subprocess
import sys
from pathlib import Path

import pytest
from registries import ONE_BENCHMARK, save_weights, small_model, write_registry

from pipeline.history import read_history
from pipeline.schedule.options import load_registry
from pipeline.schedule.refeaturize import HISTORY, TaskFolder, refeaturize
from pipeline.stages.job import Silence


def marks(cache: Path) -> dict[Path, int]:
    """Every done mark of a cache with its time: unchanged where nothing was computed again."""
    return {mark: mark.stat().st_mtime_ns for mark in cache.rglob("done/*.json")}


@pytest.mark.slow
def test_three_models_one_updated_one_broken_on_two_benchmarks(entk, tmp_path):
    models = {
        "steady": small_model(save_weights(tmp_path / "steady.pth", 1)),
        "updated": small_model(save_weights(tmp_path / "updated.pth", 2)),
        "broken": small_model(tmp_path / "broken.pth"),
    }
    (tmp_path / "broken.pth").write_bytes(b"not a checkpoint")
    registry = write_registry(tmp_path, models)
    out = tmp_path / "schedule"

    code, printed = entk("refeaturize", str(registry), "--out", str(out))
    assert code == 1, printed
    assert "broken.pth" in printed
    entries = read_history(out / HISTORY)
    assert {(e.model, e.benchmark) for e in entries} == {
        (model, benchmark)
        for model in ("steady", "updated")
        for benchmark in ("digits_a", "digits_b")
    }
    assert all(e.id is not None and e.ood is not None and e.bytes > 0 for e in entries)
    assert all(e.seconds > 0 and e.drift is None for e in entries)
    before = marks(tmp_path / "cache")

    save_weights(tmp_path / "updated.pth", 3)
    code, printed = entk("refeaturize", str(registry), "--out", str(out))
    assert code == 1, printed
    entries = read_history(out / HISTORY)
    assert [(e.model, e.benchmark) for e in entries[4:]] == [
        ("updated", "digits_a"),
        ("updated", "digits_b"),
    ]
    assert entries[4].revision != entries[2].revision
    assert entries[4].drift["train"]["relative"] > 0.1
    assert entries[4].drift["train"]["cosine"] < 0.999
    after = marks(tmp_path / "cache")
    assert {mark: after[mark] for mark in before} == before
    assert len(after) > len(before)

    page = (out / "leaderboard.html").read_text()
    text = (out / "leaderboard.md").read_text()
    for written in (page, text):
        assert "broken.pth" in written
        assert entries[4].revision in written
        assert entries[2].revision in written
    for entry in entries:
        assert (out / entry.run / "report.html").is_file()

    write_registry(tmp_path, models, retention={"revisions": 1})
    replaced = Path(entries[2].stores["train"])
    code, would = entk("gc", str(registry), "--out", str(out), "--dry-run")
    assert code == 0
    assert str(replaced) in would
    assert replaced.is_dir()
    code, printed = entk("gc", str(registry), "--out", str(out))
    assert code == 0
    assert not replaced.exists()
    assert Path(entries[0].stores["train"]).is_dir()
    assert "0 folders" in entk("gc", str(registry), "--out", str(out))[1]


def test_nothing_new_is_exit_code_0_and_leaves_the_history_alone(entk, tmp_path):
    weights = save_weights(tmp_path / "a.pth", 1)
    registry = write_registry(tmp_path, {"a": small_model(weights)}, **ONE_BENCHMARK)
    assert entk("refeaturize", str(registry))[0] == 0
    history = tmp_path / "runs/schedules/weekly" / HISTORY
    before = history.read_bytes()
    # The same weights under another file's name and time are the same revision.
    moved = weights.rename(tmp_path / "moved.pth")
    write_registry(tmp_path, {"a": small_model(moved)}, **ONE_BENCHMARK)
    code, printed = entk("refeaturize", str(registry))
    assert code == 0
    assert "unchanged" in printed
    assert history.read_bytes() == before


@pytest.mark.slow
def test_a_revision_that_comes_back_is_recorded_and_computes_nothing(tmp_path):
    models = {"a": small_model(save_weights(tmp_path / "a.pth", 1))}
    path = write_registry(tmp_path, models, **ONE_BENCHMARK)
    registry, root = load_registry(path), tmp_path / "schedule"
    for seed in (1, 2, 1):
        save_weights(tmp_path / "a.pth", seed)
        known = marks(tmp_path / "cache")
        outcomes = refeaturize(registry, root, Silence())
        assert {outcome.state for outcome in outcomes} == {"scored"}
    assert marks(tmp_path / "cache") == known
    entries = read_history(root / HISTORY)
    assert entries[0].revision == entries[2].revision != entries[1].revision
    assert len(entries) == 3
    assert entries[2].ood == entries[0].ood


def test_a_mistake_in_one_model_stops_that_model_alone(entk, tmp_path):
    models = {
        "typo": {"model": {"kind": "small_cnn", "widhts": [4, 8]}},
        "absent": {"model": {"kind": "small_cnn", "weights": "${NO_SUCH_VARIABLE}/a.pth"}},
        "sound": small_model(save_weights(tmp_path / "a.pth", 1)),
    }
    registry = write_registry(tmp_path, models, **ONE_BENCHMARK)
    code, printed = entk("refeaturize", str(registry))
    assert code == 1
    assert "Did you mean 'widths'" in printed
    assert "NO_SUCH_VARIABLE" in printed
    history = read_history(tmp_path / "runs/schedules/weekly" / HISTORY)
    assert {entry.model for entry in history} == {"sound"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modles": {}}, "Did you mean 'models'"),
        ({"sketches": {"../up": {"kind": "uniform"}}}, "letters, digits"),
        ({"config": {"model": {}}}, "the registry sets them"),
        ({"retention": {"revisions": 0}}, "retention.revisions"),
    ],
)
def test_a_mistake_in_the_registry_is_one_message_and_exit_code_2(entk, tmp_path, changes, message):
    registry = write_registry(tmp_path, {"a": small_model(tmp_path / "a.pth")}, **changes)
    code, printed = entk("refeaturize", str(registry))
    assert code == 2
    assert message in printed


def test_a_damaged_history_is_one_message_before_any_model_is_visited(entk, tmp_path):
    models = {"a": small_model(save_weights(tmp_path / "a.pth", 1))}
    registry = write_registry(tmp_path, models, **ONE_BENCHMARK)
    out = tmp_path / "schedule"
    out.mkdir()
    (out / HISTORY).write_text("[1]\n{}\n")
    code, printed = entk("refeaturize", str(registry), "--out", str(out))
    assert code == 2
    assert printed.count("is damaged") == 1
    assert not list(out.rglob("failure.json"))


@pytest.mark.slow
def test_two_schedulers_at_once_score_every_cell_once(tmp_path):
    models = {
        name: small_model(save_weights(tmp_path / f"{name}.pth", seed))
        for seed, name in enumerate(("a", "b"))
    }
    path = write_registry(tmp_path, models, **ONE_BENCHMARK)
    entk = [sys.executable, "-c", "from pipeline.cli import main; main()"]
    command = [*entk, "refeaturize", str(path), "--out", str(tmp_path / "schedule")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    tasks = [entry.task for entry in read_history(tmp_path / "schedule" / HISTORY)]
    assert sorted(tasks) == sorted(load_registry(path).tasks())


@pytest.mark.slow
def test_a_cell_that_took_its_process_down_is_visited_last(tmp_path):
    models = {
        name: small_model(save_weights(tmp_path / f"{name}.pth", 0)) for name in ("deadly", "sound")
    }
    registry = load_registry(write_registry(tmp_path, models, **ONE_BENCHMARK))
    root = tmp_path / "schedule"
    TaskFolder(root, registry.tasks()[0]).begun.touch()
    outcomes = refeaturize(registry, root, Silence())
    assert [outcome.task.model for outcome in outcomes] == ["sound", "deadly"]
    assert not list(root.rglob(".begun"))
