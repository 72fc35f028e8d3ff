import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation import Predictions, evaluate, write_predictions
from pipeline.evaluation.comparisons import compare_methods

SPLITS = {"val": 50, "id_test": 80, "ood_test": 70}
CURVE = {"splits": {"id_test": [0.3, 0.5, 0.6], "ood_test": [0.2, 0.35, 0.4]}}


def predictions_on(split: str, strength: float, groups: bool) -> Predictions:
    rng = np.random.default_rng(SPLITS[split])
    labels = rng.integers(3, size=SPLITS[split])
    scores = rng.normal(size=(len(labels), 3)) + strength * np.eye(3)[labels]
    domains = np.where(np.arange(len(labels)) % 2, "odd", "even") if groups else None
    ids = np.array([f"{split}/{i}" for i in range(len(labels))])
    return Predictions(scores, labels, ids, groups=domains)


@pytest.fixture
def compared(tmp_path: Path) -> dict:
    for method, strength in (("entk", 1.5), ("linear_probe", 0.8)):
        for split in SPLITS:
            path = tmp_path / "predictions" / method / f"{split}.npz"
            write_predictions(path, predictions_on(split, strength, groups=split == "ood_test"))
    scored = evaluate(tmp_path / "predictions", tmp_path / "fit", benchmark="toy")
    found = compare_methods(tmp_path / "predictions", scored, {"entk": CURVE})
    return {"scored": scored["methods"], "found": json.loads(json.dumps(found, allow_nan=False))}


def test_intervals_hold_the_metric_they_belong_to(compared):
    for split, facts in compared["found"]["splits"].items():
        for method, intervals in facts["intervals"].items():
            for metric, (low, high) in intervals.items():
                assert low <= compared["scored"][method]["splits"][split][metric] <= high
                assert low < high


def test_a_difference_is_that_of_the_two_accuracies_with_a_narrower_interval(compared):
    facts = compared["found"]["splits"]["id_test"]
    (pair,) = facts["differences"]
    a, b = (
        compared["scored"][m]["splits"]["id_test"]["accuracy"] for m in ("entk", "linear_probe")
    )
    assert (pair["of"], pair["minus"]) == ("entk", "linear_probe")
    assert pair["mean"] == pytest.approx(a - b, abs=1e-12)
    spread = np.array(
        [np.subtract(*interval["accuracy"]) for interval in facts["intervals"].values()]
    )
    assert np.subtract(*pair["interval"]) > spread.sum()


def test_domains_are_scored_where_the_split_has_them(compared):
    on_shift = compared["found"]["splits"]["ood_test"]["methods"]["entk"]["groups"]
    worst = min(group["accuracy"] for group in on_shift.values())
    assert compared["scored"]["entk"]["splits"]["ood_test"]["worst_group_accuracy"] == worst
    assert "groups" not in compared["found"]["splits"]["id_test"]["methods"]["entk"]


def test_the_probit_line_counts_every_method_and_every_ridge(compared):
    found = compared["found"]["effective_robustness"]["ood_test"]
    assert found["line"]["points"] == 2 + 3
    assert found["ridges"] == {"entk": [[0.3, 0.2], [0.5, 0.35], [0.6, 0.4]]}
    assert set(found["methods"]) == {"entk", "linear_probe"}


def test_methods_agree_with_themselves(compared):
    found = compared["found"]["splits"]["ood_test"]["agreement"]
    assert np.diag(found["same_class"]).tolist() == [1.0, 1.0]
    assert found["methods"] == ["entk", "linear_probe"]


def test_regressions_are_compared_by_their_squared_error(tmp_path):
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(40, 2))
    ids = np.array([f"row {i}" for i in range(40)])
    for method, noise in (("entk", 0.1), ("linear_probe", 0.5)):
        for split in ("val", "ood_test"):
            means = targets + noise * rng.normal(size=targets.shape)
            path = tmp_path / "predictions" / method / f"{split}.npz"
            write_predictions(path, Predictions(means, targets, ids))
    scored = evaluate(tmp_path / "predictions", tmp_path / "fit", benchmark="toy")
    found = compare_methods(tmp_path / "predictions", scored, {})
    (pair,) = found["splits"]["ood_test"]["differences"]
    assert pair["metric"] == "mse"
    assert pair["interval"][1] < 0.0
    assert found["effective_robustness"] == {}
