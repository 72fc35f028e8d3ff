import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from pipeline.baselines.linear_probe import LinearProbeOptions, logistic_path, logistic_probe
from pipeline.baselines.ridge_probe import ridge_path, ridge_probe
from pipeline.types import InputError

SIZES = {"train": 301, "val": 120, "id_test": 80, "ood_test": 90}
PROBES = [logistic_probe, ridge_probe]


def toy(k: int = 4, h: int = 9, dtype: type = np.float32) -> tuple[dict, dict]:
    """Overlapping Gaussian classes on columns of very different means and scales."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(k, h))
    features, labels = {}, {}
    for split, n in SIZES.items():
        labels[split] = rng.integers(k, size=n)
        noise = 1.5 * rng.normal(size=(n, h))
        features[split] = ((centres[labels[split]] + noise) * 2.0 + 5.0).astype(dtype)
    return features, labels


def test_the_ridge_path_equals_scikit_learn_in_one_part_and_in_several():
    features, labels = toy(dtype=np.float64)
    H, Y = features["train"], np.eye(4)[labels["train"]]
    scale = np.sum((H - H.mean(0)) ** 2) / len(H)
    for parts in ([H], [H[:7], H[7:]]):
        for model, ridge in zip(ridge_path(parts, Y, [1e-3, 10.0]), [1e-3, 10.0], strict=True):
            oracle = Ridge(alpha=ridge * scale).fit(H, Y)
            np.testing.assert_allclose(model.weights, oracle.coef_, rtol=1e-8, atol=1e-12)
            np.testing.assert_allclose(model.bias, oracle.intercept_, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("k", [2, 4])
def test_the_logistic_path_equals_a_cold_tight_fit_on_features_scaled_once(k):
    features, labels = toy(k, dtype=np.float64)
    H, y = features["train"], labels["train"]
    models, _ = logistic_path(H, y, [1e-3, 1e-1], 2000)
    for model, C in zip(models, [1e-3, 1e-1], strict=True):
        cold = LogisticRegression(C=C, tol=1e-10, max_iter=10_000)
        cold.fit((H - H.mean()) / H.std(), y)
        expected = cold.predict_proba((features["val"] - H.mean()) / H.std())
        scores = model.scores(features["val"])
        q = np.exp(scores - scores.max(1, keepdims=True))
        np.testing.assert_allclose(q / q.sum(1, keepdims=True), expected, atol=2e-3)


@pytest.mark.parametrize("probe", PROBES)
def test_probes_choose_the_best_on_validation_and_score_every_other_split(probe):
    features, labels = toy()
    fit = probe(features, labels, classes=4)
    best = int(np.argmax(fit.curve["val"]))
    assert list(fit.scores) == ["val", "id_test", "ood_test"]
    for split, scores in fit.scores.items():
        assert scores.shape == (SIZES[split], 4)
        assert scores.dtype == np.float64
        assert np.mean(scores.argmax(1) == labels[split]) == fit.curve[split][best]
    assert fit.curve["val"][best] > 0.55
    assert fit.certificate["converged"]


@pytest.mark.parametrize("probe", PROBES)
def test_labels_of_test_splits_never_reach_the_choice(probe):
    features, labels = toy()
    garbage = {**labels, "id_test": np.zeros(80, dtype=int), "ood_test": np.ones(90, dtype=int)}
    clean, blind = (probe(features, found, classes=4) for found in (labels, garbage))
    assert clean.selected == blind.selected
    np.testing.assert_array_equal(clean.scores["ood_test"], blind.scores["ood_test"])


@pytest.mark.parametrize("probe", PROBES)
def test_ties_go_to_the_stronger_regularization(probe):
    features, labels = toy(k=2)
    for split, y in labels.items():  # Classes far apart: many strengths are perfect.
        features[split] = (features[split] * 1e-3 + 10.0 * y[:, None]).astype(np.float32)
    fit = probe(features, labels, classes=2)
    perfect = [s for s, merit in zip(fit.strengths, fit.curve["val"], strict=True) if merit == 1.0]
    assert len(perfect) > 5
    chosen = fit.selected["ridge"] if probe is ridge_probe else 1.0 / fit.selected["C"]
    assert chosen == max(perfect)


def test_a_choice_at_the_edge_of_the_grid_is_noted():
    features, labels = toy()
    fit = ridge_probe(features, labels, classes=4, ridges=[1e6, 1e7])
    assert any("edge" in note for note in fit.notes)


@pytest.mark.parametrize("probe", PROBES)
def test_refitting_changes_the_test_scores_and_keeps_validation_held_out(probe):
    features, labels = toy()
    once = probe(features, labels, classes=4)
    again = probe(features, labels, classes=4, refit=True)
    assert again.selected == once.selected
    np.testing.assert_array_equal(again.scores["val"], once.scores["val"])
    assert not np.array_equal(again.scores["id_test"], once.scores["id_test"])


def test_every_strength_is_heard_of_and_again_when_refitted():
    features, labels = toy()
    heard: list[int] = []
    Cs = [1e-3, 1e-2, 1e-1]
    found = logistic_probe(features, labels, classes=4, Cs=Cs, refit=True, on_fit=heard.append)
    again = Cs.index(found.selected["C"]) + 1
    assert heard == [0, 1, 2, *range(again)]


def test_selection_on_the_id_test_split_is_possible_under_its_name():
    features, labels = toy()
    fit = ridge_probe(features, labels, classes=4, selection="id_test")
    assert (
        max(fit.curve["id_test"])
        == fit.curve["id_test"][fit.strengths.index(fit.selected["ridge"])]
    )


def test_real_targets_are_regressed():
    features, _ = toy(dtype=np.float64)
    W = np.random.default_rng(1).normal(size=(9, 2))
    targets = {split: rows @ W + 3.0 for split, rows in features.items()}
    fit = ridge_probe(features, targets, classes=2)
    np.testing.assert_allclose(fit.scores["ood_test"], targets["ood_test"], atol=1e-3)


def test_a_probe_that_stops_early_says_so():
    features, labels = toy()
    fit = logistic_probe(features, labels, classes=4, Cs=[1e2], max_iterations=2)
    assert not fit.certificate["converged"]
    assert "1 of 1 values of C stopped at 2 iterations" in fit.notes


def test_the_default_grid_is_the_papers():
    Cs = LinearProbeOptions().Cs()
    assert (len(Cs), Cs[0], Cs[-1]) == (50, pytest.approx(1e-7), pytest.approx(1e2))


def test_bad_input_is_refused():
    features, labels = toy()
    with pytest.raises(InputError, match=r"have none: \[4\]"):
        logistic_probe(features, labels, classes=5)
    with pytest.raises(InputError, match="needs the split 'val'"):
        ridge_probe({"train": features["train"]}, labels, classes=4)
    with pytest.raises(InputError, match="0 … 1"):
        ridge_probe(features, labels, classes=2)
    constant = {split: np.ones_like(rows) for split, rows in features.items()}
    for probe in PROBES:
        with pytest.raises(InputError, match="nothing to fit"):
            probe(constant, labels, classes=4)
    features["ood_test"][3, 3] = np.nan
    with pytest.raises(InputError, match="ood_test are not all finite"):
        ridge_probe(features, labels, classes=4)
