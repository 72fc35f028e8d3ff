import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import metrics
from pipeline.artefact import CorruptArtefactError, write_json
from pipeline.evaluation import Predictions, evaluate, read_predictions, write_predictions
from pipeline.types import InputError

SPLITS = {"val": 60, "id_test": 80, "ood_test": 70}


def predictions_on(split: str, seed: int = 0, k: int = 4) -> Predictions:
    rows = np.random.default_rng(SPLITS[split])
    labels = rows.integers(k, size=SPLITS[split])
    scores = np.random.default_rng(seed).normal(size=(len(labels), k)) * 0.3
    scores[np.arange(len(labels)), labels] += 0.4
    return Predictions(scores, labels, np.array([f"{split}/{i}" for i in range(len(labels))]))


def write_method(run: Path, method: str, seed: int, selected: dict | None = None) -> None:
    for split in SPLITS:
        write_predictions(
            run / "predictions" / method / f"{split}.npz", predictions_on(split, seed)
        )
    write_json(run / "fit" / method / "fit.json", {"selected": selected or {"ridge": 0.003}})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_method(tmp_path, "linear_probe", 1, {"C": 10.0})
    write_method(tmp_path, "entk", 0)
    return tmp_path


def evaluated(run: Path, **options: str) -> dict:
    return evaluate(run / "predictions", run / "fit", benchmark="toy", **options)


def test_predictions_come_back_as_written(tmp_path):
    written = predictions_on("val")
    write_predictions(tmp_path / "val.npz", written)
    found = read_predictions(tmp_path / "val.npz")
    np.testing.assert_array_equal(found.scores, written.scores)
    np.testing.assert_array_equal(found.labels, written.labels)
    np.testing.assert_array_equal(found.ids, written.ids)
    assert found.variance is None


def test_metrics_hold_the_contract(run):
    found = evaluated(run)
    assert found["benchmark"] == "toy"
    assert found["selection"] == {"split": "val", "metric": "accuracy"}
    assert list(found["methods"]) == ["entk", "linear_probe"]
    assert found["methods"]["linear_probe"]["selected"] == {"C": 10.0}
    assert list(found["methods"]["entk"]["splits"]) == ["val", "id_test", "ood_test"]
    on_ood = found["methods"]["entk"]["splits"]["ood_test"]
    assert {"n", "accuracy", "nll", "nll_raw", "ece", "stderr"} <= set(on_ood)
    assert on_ood["n"] == SPLITS["ood_test"]
    truth = predictions_on("ood_test", 0)
    assert on_ood["accuracy"] == metrics.accuracy(truth.scores, truth.labels)


def test_equal_predictions_give_equal_bytes(run):
    first, second = json.dumps(evaluated(run)), json.dumps(evaluated(run))
    assert first == second


def test_the_temperature_is_fitted_on_validation_alone(run):
    before = evaluated(run)["methods"]["entk"]["temperature"]
    val = predictions_on("val")
    assert before == metrics.fit_temperature(val.scores, val.labels)
    garbage = np.random.default_rng(9)
    for method in ("entk", "linear_probe"):
        for split in ("id_test", "ood_test"):
            found = predictions_on(split)
            labels = (
                garbage.permutation(found.labels) if method == "entk" else labels_of(run, split)
            )
            write_predictions(
                run / "predictions" / method / f"{split}.npz",
                Predictions(found.scores, labels, found.ids),
            )
    assert evaluated(run)["methods"]["entk"]["temperature"] == before


def labels_of(run: Path, split: str) -> np.ndarray:
    return read_predictions(run / "predictions" / "entk" / f"{split}.npz").labels


def test_selection_on_the_id_test_split_is_named_and_calibrates_without_validation(run):
    for method in ("entk", "linear_probe"):
        (run / "predictions" / method / "val.npz").unlink()
    with pytest.raises(InputError, match="no predictions on 'val'"):
        evaluated(run)
    found = evaluated(run, selection="id_test")
    assert found["selection"]["split"] == "id_test"
    assert found["methods"]["entk"]["calibration_split"] == "id_test"


def test_a_diverged_method_is_missing_with_its_reason_and_never_nan(run):
    fit = {"selected": None, "status": "diverged", "reason": "every learning rate diverged"}
    write_json(run / "fit" / "finetune" / "fit.json", fit)
    found = evaluated(run)["methods"]
    assert list(found) == ["entk", "linear_probe", "finetune"]
    assert found["finetune"] == {
        "selected": None,
        "splits": {},
        "missing": "every learning rate diverged",
    }
    json.dumps(found, allow_nan=False)


def test_scores_that_are_not_finite_are_refused_with_the_method(run):
    bad = predictions_on("ood_test")
    bad.scores[5] = np.nan
    write_predictions(run / "predictions" / "entk" / "ood_test.npz", bad)
    with pytest.raises(InputError, match=r"entk cannot be scored.*row 5"):
        evaluated(run)


def test_methods_predicted_on_different_rows_are_refused(run):
    found = predictions_on("id_test")
    shuffled = Predictions(found.scores[::-1], found.labels[::-1], found.ids[::-1])
    write_predictions(run / "predictions" / "linear_probe" / "id_test.npz", shuffled)
    with pytest.raises(InputError, match="different rows of id_test"):
        evaluated(run)


def test_a_damaged_file_and_an_empty_folder_are_refused_by_name(run, tmp_path):
    path = run / "predictions" / "entk" / "val.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptArtefactError, match=r"entk/val\.npz"):
        evaluated(run)
    with pytest.raises(InputError, match="no predictions"):
        evaluate(tmp_path / "none", tmp_path / "nothing", benchmark="toy")


def test_leftovers_of_another_config_stay_out(run):
    found = evaluate(run / "predictions", run / "fit", benchmark="toy", methods=["entk"])
    assert list(found["methods"]) == ["entk"]


def test_an_unfinished_prediction_folder_is_not_a_method(run):
    (run / "predictions" / "scratch.partial").mkdir()
    assert "scratch" not in evaluated(run)["methods"]


@pytest.mark.parametrize("own_variance", [False, True])
def test_regressions_carry_mse_nll_and_coverage(tmp_path, own_variance):
    rng = np.random.default_rng(0)
    for split, n in SPLITS.items():
        means = rng.normal(size=(n, 2))
        targets = means + 0.5 * rng.normal(size=means.shape)
        variance = np.full_like(means, 0.25) if own_variance else None
        ids = np.array([str(i) for i in range(n)])
        write_predictions(
            tmp_path / "predictions" / "entk" / f"{split}.npz",
            Predictions(means, targets, ids, variance),
        )
    found = evaluated(tmp_path)
    assert found["selection"]["metric"] == "mse"
    on_test = found["methods"]["entk"]["splits"]["id_test"]
    assert on_test["mse"] == pytest.approx(0.25, rel=0.3)
    assert on_test["coverage"] == pytest.approx(0.95, abs=0.06)
    assert (found["methods"]["entk"]["variance"] is None) == own_variance
