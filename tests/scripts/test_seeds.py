"""The table over seeds, from run folders made by hand."""

import importlib.util
import json
import statistics
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "seeds.py"


@pytest.fixture(scope="module")
def seeds():
    spec = importlib.util.spec_from_file_location("seeds_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


@pytest.fixture
def runs(tmp_path):
    for seed, accuracy in ((0, 0.5), (1, 0.6), (2, 0.76)):
        run = tmp_path / f"seed_{seed}"
        scores = {"n": 100, "accuracy": accuracy, "stderr": 0.05, "nll": 1.0 + seed}
        chosen = {"learning_rate": 0.03}
        tuned = {"selected": chosen, "splits": {"id_test": scores}}
        failed = {"selected": None, "splits": {}, "missing": "every learning rate diverged"}
        write(run, "metrics.json", {"methods": {"finetune": tuned, "scratch": failed}})
        points = [
            {"learning_rate": 0.01, "accuracy": 0.4},
            {"learning_rate": 0.03, "accuracy": 0.6},
        ]
        write(run, "fit/finetune/fit.json", {"selected": chosen, "grid": points})
        write(run, "fit/scratch/fit.json", {"selected": None, "grid": []})
        path = [{"ridge": 0.1, "gcv": 0.5}, {"ridge": 1.0, "gcv": 0.8}]
        write(run, "fit/entk/fit.json", {"ridge_path": path})
        over_time = {"dynamics": "nesterov", "ridges": [0.1], "iterations": [1], "values": [[0.5]]}
        write(run, "fit/entk_early_stopping/fit.json", {"plane": {**over_time, "stderrs": [[0.1]]}})
        curve = {"ridges": [0.1, 0.5, 1.0], "risks": {"id_test": [0.4, 0.6, 1.0]}}
        write(run, "curves/entk/curves.json", {"ridge_curve": curve})
        write(run, "timing.json", {"finetune": {"seconds": 12.5, "epoch": 3}})
    return tmp_path


def test_mean_and_deviation_are_over_the_seeds(seeds, runs):
    found = seeds.table(Path("configs/x.yaml"), runs, [0, 1, 2])
    accuracy = found["methods"]["finetune"]["splits"]["id_test"]["accuracy"]
    assert accuracy["values"] == [0.5, 0.6, 0.76]
    assert accuracy["mean"] == pytest.approx(0.62)
    assert accuracy["sd"] == pytest.approx(statistics.stdev([0.5, 0.6, 0.76]))
    assert len(found["grids"]["finetune"]) == 2
    assert found["seconds"][1] == {"finetune": 12.5}
    assert found["methods"]["scratch"]["splits"] == {}
    assert found["plane"]["values"] == [[0.5]]
    assert found["gcv_misses_by"][1]["id_test"] == pytest.approx(0.25)


def test_one_seed_has_no_deviation(seeds, runs):
    found = seeds.table(Path("configs/x.yaml"), runs, [1])
    assert found["methods"]["finetune"]["splits"]["id_test"]["nll"] == {
        "values": [2.0],
        "mean": 2.0,
        "sd": None,
    }


def test_other_seeds_train_at_the_first_seed_s_choice_and_nothing_else(seeds, runs):
    baseline = {"kind": "finetune", "learning_rates": [0.01, 0.03], "epochs": 5}
    assert seeds.tuned(baseline, 0, None) == {**baseline, "seed": 0}
    assert seeds.tuned(baseline, 2, runs / "seed_0") == {
        "kind": "finetune",
        "learning_rates": [0.03],
        "extensions": 0,
        "epochs": 5,
        "seed": 2,
    }
    assert seeds.tuned("linear_probe", 2, runs / "seed_0") == "linear_probe"
    augmented = {"kind": "linear_probe_augmented", "seed": 2}
    assert seeds.tuned("linear_probe_augmented", 2, runs / "seed_0") == augmented


def test_a_method_that_diverged_on_the_first_seed_stops_the_others(seeds, runs):
    with pytest.raises(SystemExit, match="scratch diverged"):
        seeds.tuned("scratch", 1, runs / "seed_0")
