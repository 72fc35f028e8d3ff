import numpy as np
import pytest
from small_runs import run

from pipeline.artefact import read_json
from pipeline.metrics import accuracy
from pipeline.solvers import KernelRidge
from pipeline.stages.kernel_files import KernelBlocks
from pipeline.store import FeatureStore


@pytest.fixture(scope="module")
def sized(undisturbed, tmp_path_factory):
    """A run that asks for two prefixes; features come from the undisturbed run's cache."""
    folder = tmp_path_factory.mktemp("columns") / "run"
    return run(folder, undisturbed.path.parent / "cache", "kernel.sizes=[100, 600]")


def test_every_size_and_all_columns_are_scored_on_every_split(sized):
    points = read_json(sized.columns / "columns.json")["columns"]
    assert [point["size"] for point in points] == [100, 600, 1500]
    for point in points:
        assert set(point["splits"]) == {"val", "id_test", "ood_test", "ood_blur", "ood_thick"}


def test_all_columns_give_the_scores_of_the_table(sized):
    last = read_json(sized.columns / "columns.json")["columns"][-1]
    table = read_json(sized.metrics)["methods"]["entk"]
    assert last["ridge"] == pytest.approx(table["selected"]["ridge"])
    for split, scores in last["splits"].items():
        assert scores["accuracy"] == pytest.approx(table["splits"][split]["accuracy"])


def test_a_prefix_is_a_machine_on_the_first_columns(sized):
    point = read_json(sized.columns / "columns.json")["columns"][0]
    blocks = KernelBlocks.open(sized.kernel, 100)
    opened = {name: entry["store"] for name, entry in read_json(sized.features).items()}
    labels = {name: FeatureStore.open(opened[name]).labels() for name in ("train", "ood_test")}
    Y = np.eye(labels["train"].max() + 1)[labels["train"]]
    machine = KernelRidge(ridge=point["ridge"]).fit(blocks.train(), Y - Y.mean(axis=0))
    scores = machine.predict(blocks.cross("ood_test")) + Y.mean(axis=0)
    expected = accuracy(scores, labels["ood_test"])
    assert point["splits"]["ood_test"]["accuracy"] == pytest.approx(expected)


def test_the_report_draws_both_curves(sized):
    drawn = {file.stem for file in (sized.path / "figures").glob("*.svg")}
    assert {"columns", "risk-entk"} <= drawn


def test_the_measured_risk_lies_beside_the_predicted_one(undisturbed):
    curve = read_json(undisturbed.curves("entk") / "curves.json")["ridge_curve"]
    path = read_json(undisturbed.fit("entk") / "fit.json")["ridge_path"]
    predicted = {point["ridge"]: point["gcv"] for point in path}
    measured = dict(zip(curve["ridges"], curve["risks"]["id_test"], strict=True))
    assert all(0 < risk < 1 for risk in measured.values())
    largest = max(predicted)
    # At the largest ridge everything is predicted by the mean: both are the targets' variance.
    assert predicted[largest] == pytest.approx(measured[largest], rel=0.1)
