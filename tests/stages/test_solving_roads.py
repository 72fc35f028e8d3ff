"""A lowered ``limits.memory`` leads to every road, and every road to the metrics of the first.

Equal are the chosen stopping time, every accuracy and its standard error; the chosen ridge to 1e-6;
all other numbers to the rounding of K's float32 entries, which each road adds up in its own order.
``iterations`` counts products and belongs to the solver.
"""

import os
import signal
from threading import Thread

import numpy as np
import psutil
import pytest
from small_runs import events, run, wait_for

from pipeline.artefact import read_json
from pipeline.runs import RunFolder

ALONE = "executor={kind: local, workers: 1, threads: 1}"
TWO = "executor={kind: ray, workers: 2, threads: 1}"

DISK = (ALONE, "limits.memory=574MiB")
WITHOUT_BASIS = (ALONE, "limits.memory=569MiB")
SHARDED = (TWO, "limits.memory=500MiB")

EQUAL = ("n", "accuracy", "balanced_accuracy", "stderr")


def assert_same_results(found: RunFolder, reference: RunFolder):
    ours, theirs = (read_json(folder.metrics)["methods"] for folder in (found, reference))
    assert ours.keys() == theirs.keys()
    for method, expected in theirs.items():
        assert_same_choice(ours[method]["selected"], expected["selected"])
        for split, numbers in expected["splits"].items():
            for name, value in numbers.items():
                got = ours[method]["splits"][split][name]
                tolerance = 0.0 if name in EQUAL else 2e-3
                assert got == pytest.approx(value, rel=tolerance, abs=tolerance), (split, name)
    for method in ("entk", "entk_early_stopping"):
        for file in reference.predictions(method).glob("*.npz"):
            wanted = np.load(file)["scores"]
            scores = np.load(found.predictions(method) / file.name)["scores"]
            np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())


def assert_same_choice(ours: dict, theirs: dict):
    assert ours["ridge"] == pytest.approx(theirs["ridge"], rel=1e-6)
    if theirs.get("stopping") == "early":
        assert ours["iterations"] == theirs["iterations"]


def strategy(folder: RunFolder) -> str:
    return read_json(folder.plan)["strategy"]


@pytest.fixture(scope="module")
def sharded(undisturbed, tmp_path_factory, ray_executor) -> RunFolder:
    ray_executor.stop_workers()
    folder = tmp_path_factory.mktemp("sharded") / "run"
    return run(folder, undisturbed.path.parent / "cache", *SHARDED)


def test_one_process_finds_the_same_with_K_on_disk(undisturbed, tmp_path):
    found = run(tmp_path / "run", undisturbed.path.parent / "cache", *DISK)
    assert strategy(found) == "disk"
    assert_same_results(found, undisturbed)


def test_where_no_basis_fits_each_ridge_is_solved_for_alone(undisturbed, tmp_path):
    found = run(tmp_path / "run", undisturbed.path.parent / "cache", *WITHOUT_BASIS)
    assert strategy(found) == "matrix_free"
    assert not (found.path / "kernel" / "train.npy").exists()
    assert read_json(found.fit("entk") / "fit.json")["solver"] == "cg"
    assert not list(found.path.glob("curves/*"))
    ours, theirs = (read_json(folder.metrics)["methods"]["entk"] for folder in (found, undisturbed))
    for split, numbers in theirs["splits"].items():
        assert ours["splits"][split]["accuracy"] == pytest.approx(numbers["accuracy"], abs=0.03)


def test_workers_that_share_the_rows_of_K_find_the_same(sharded, undisturbed):
    assert strategy(sharded) == "sharded"
    assert_same_results(sharded, undisturbed)
    assert not (sharded.path / "kernel" / "train.npy").exists()
    assert not (sharded.path / "kernel.work").exists()


def test_workers_that_share_the_features_find_the_same(undisturbed, tmp_path, free_cluster):
    # The disk has room for the features and not for the workers' rows of K.
    disk = read_json(undisturbed.plan)["store_bytes"] + 100_000
    found = run(
        tmp_path / "run", undisturbed.path.parent / "cache", *SHARDED, f"limits.disk={disk}"
    )
    assert strategy(found) == "matrix_free"
    assert_same_results(found, undisturbed)
    [fit] = [e for e in events(found, "stage_done") if e["stage"] == "fit entk"]
    # All-reduced: p numbers a column, 2 (w − 1) times in all.
    assert fit["bytes_sent_in_products"] == fit["products"] * 2 * 1500 * 8


def test_a_product_with_shared_rows_sends_n_numbers_a_column(sharded):
    [fit] = [e for e in events(sharded, "stage_done") if e["stage"] == "fit entk"]
    assert fit["bytes_sent_in_products"] == fit["products"] * 200 * 8
    assert fit["bytes_sent"] > fit["bytes_sent_in_products"]


def test_a_dead_worker_is_an_error_and_the_same_command_finishes(
    sharded, undisturbed, tmp_path, free_cluster
):
    from pipeline.distributed.ray_group import GroupFailedError

    folder, cache = RunFolder(tmp_path / "run"), undisturbed.path.parent / "cache"
    killer = Thread(target=kill_a_worker_of_the_fit, args=[folder])
    killer.start()
    # The command line prints an InputError, which this is, and exits with code 2.
    with pytest.raises(GroupFailedError, match=r"(?s)worker . of 2.*was lost.*same command"):
        run(folder.path, cache, *SHARDED)
    killer.join()
    assert not folder.fit("entk").exists()
    assert made(folder, "kernel") == 1
    run(folder.path, cache, *SHARDED)
    assert made(folder, "kernel") == 1
    assert folder.metrics.read_bytes() == sharded.metrics.read_bytes()


def made(folder: RunFolder, stage: str) -> int:
    return len([event for event in events(folder, "stage_done") if event["stage"] == stage])


def kill_a_worker_of_the_fit(folder: RunFolder):
    def solving():
        if not folder.events.is_file():
            return []
        if not [e for e in events(folder, "stage_started") if e["stage"] == "fit entk"]:
            return []
        children = psutil.Process().children(recursive=True)
        return [child for child in children if "GroupWorker" in " ".join(child.cmdline())]

    os.kill(wait_for(solving, 90)[0].pid, signal.SIGKILL)
