"""How far test rows lie outside the training span: measured once, told by method and split."""

import csv
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_runs import events, run

from pipeline.artefact import read_arrays, read_json
from pipeline.stages.decomposition import refuse_large_decomposition
from pipeline.store import FeatureStore
from pipeline.types import InputError

ASKED = "outside_span={groups: 4}"


@pytest.fixture(scope="module")
def spanned(undisturbed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("span") / "run"
    return run(folder, undisturbed.path.parent / "cache", ASKED)


def test_shares_are_those_of_a_projection_on_the_stored_features(spanned):
    opened = {
        name: FeatureStore.open(entry["store"])
        for name, entry in read_json(spanned.features).items()
    }
    train, rows = (
        store.panel(slice(None)).astype(np.float64) * store.weights()
        for store in (opened["train"], opened["ood_blur"])
    )
    # The tolerance 1e-6 is on K's eigenvalues, squares of the features' singular values.
    basis, singular, _ = np.linalg.svd(train.T, full_matrices=False)
    basis = basis[:, singular**2 > 1e-6 * singular[0] ** 2]
    expected = 1 - np.sum((rows @ basis) ** 2, axis=1) / np.sum(rows**2, axis=1)
    found = read_arrays(spanned.outside_span / "shares.npz")
    assert set(found) == {"id_test", "ood_test", "ood_blur", "ood_thick"}
    np.testing.assert_allclose(found["ood_blur"], expected, atol=1e-4)
    assert read_json(spanned.outside_span / "outside_span.json")["rank"] == basis.shape[1]


def test_groups_add_up_to_the_table(spanned):
    told = read_json(spanned.comparisons / "comparisons.json")["outside_span"]
    table = read_json(spanned.metrics)["methods"]
    for split, facts in told["splits"].items():
        assert set(facts["methods"]) == set(table)
        for method, scores in facts["methods"].items():
            whole = np.average(scores["mean"], weights=facts["n"])
            assert whole == pytest.approx(table[method]["splits"][split]["accuracy"])
    with (spanned.path / "tables/outside_span.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == sum(len(f["n"]) * len(f["methods"]) for f in told["splits"].values())
    assert "Outside the span" in (spanned.path / "report.html").read_text()


def test_other_groups_decompose_nothing_again(spanned, undisturbed):
    before = len(events(spanned, "stage_started"))
    run(spanned.path, undisturbed.path.parent / "cache", "outside_span={groups: 2}")
    started = [event["stage"] for event in events(spanned, "stage_started")[before:]]
    assert started == ["comparisons"]


def test_a_run_without_it_says_nothing_of_it(undisturbed):
    assert not undisturbed.outside_span.exists()
    assert "outside_span" not in read_json(undisturbed.comparisons / "comparisons.json")


@pytest.mark.parametrize("asked", ["outside_span", "gp"])
def test_a_kernel_too_large_to_decompose_is_refused_by_its_key(asked):
    config = SimpleNamespace(**{"gp": None, "outside_span": None, asked: object()})
    job: Any = SimpleNamespace(config=config, split=lambda _: range(1000))
    refuse_large_decomposition(job, SimpleNamespace(algebra_bytes=3 * 8 * 1000**2))
    with pytest.raises(InputError, match=f"{asked} decomposes K, .* or leave {asked} out"):
        refuse_large_decomposition(job, SimpleNamespace(algebra_bytes=3 * 8 * 1000**2 - 1))


def test_refitting_and_the_training_span_exclude_each_other(undisturbed, tmp_path):
    with pytest.raises(InputError, match="outside_span and refit exclude each other"):
        run(tmp_path / "run", undisturbed.path.parent / "cache", "outside_span={}", "refit=true")
