import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from pipeline import metrics
from pipeline.types import InputError


def random_scores(n: int = 500, k: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    scores = rng.normal(size=(n, k))
    scores[np.arange(n), labels] += 1.0
    return scores, labels


def softmax(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    return torch.softmax(torch.from_numpy(scores) / temperature, dim=1).numpy()


def test_metrics_equal_scikit_learn_and_torchmetrics():
    scores, labels = random_scores()
    q = softmax(scores, 0.7)
    found = metrics.classification_metrics(scores, labels, 0.7)
    onehot = np.eye(7)[labels]
    assert found["accuracy"] == np.mean(scores.argmax(1) == labels)
    assert found["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(labels, scores.argmax(1)), abs=1e-12
    )
    assert found["nll"] == pytest.approx(log_loss(labels, q), abs=1e-12)
    assert found["nll_raw"] == pytest.approx(log_loss(labels, softmax(scores)), abs=1e-12)
    assert found["brier"] == pytest.approx(np.mean(((q - onehot) ** 2).sum(1)), abs=1e-12)
    oracle = multiclass_calibration_error(torch.from_numpy(q), torch.from_numpy(labels), 7, 15)
    assert found["ece"] == pytest.approx(float(oracle), abs=1e-6)


def test_ece_equals_a_loop_over_bins():
    scores, labels = random_scores(n=301)
    q = softmax(scores)
    confidence, right = q.max(1), q.argmax(1) == labels
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert metrics.expected_calibration_error(scores, labels) == pytest.approx(total, abs=1e-9)


def test_standard_errors_agree_with_a_simulation():
    rng = np.random.default_rng(0)
    draws = rng.random((20_000, 200)) < 0.8
    assert metrics.accuracy_stderr(0.8, 200) == pytest.approx(draws.mean(1).std(), rel=0.03)
    values = rng.gamma(2.0, size=(20_000, 200))
    assert metrics.mean_stderr(values[0]) == pytest.approx(values.mean(1).std(), rel=0.2)
    assert metrics.mean_stderr(np.ones(1)) == 0.0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_fitted_temperature_minimizes_the_nll_on_a_fine_grid(scale):
    scores, labels = random_scores()
    temperature = metrics.fit_temperature(scores * scale, labels)
    grid = np.exp(np.linspace(-4, 4, 4001)) * scale
    best = min(metrics.nll(scores * scale, labels, t) for t in grid)
    assert metrics.nll(scores * scale, labels, temperature) <= best
    assert temperature == pytest.approx(metrics.fit_temperature(scores, labels) * scale, rel=1e-6)


def test_the_temperature_of_labels_drawn_from_the_model_is_the_one_they_were_drawn_at():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(20_000, 4))
    q = softmax(scores, 0.3)
    labels = (rng.random((len(q), 1)) > q.cumsum(1)).sum(1)
    assert metrics.fit_temperature(scores, labels) == pytest.approx(0.3, rel=0.03)


def test_a_perfect_validation_split_gives_a_usable_temperature():
    scores, labels = np.eye(5)[[0, 1, 2, 3, 4, 0]], np.array([0, 1, 2, 3, 4, 0])
    temperature = metrics.fit_temperature(scores, labels)
    assert 0.05 < temperature < 1.0
    wrong_on_test = metrics.nll(scores[:1], np.array([1]), temperature)
    assert math.isfinite(wrong_on_test)
    assert wrong_on_test < 10.0


def test_equal_scores_and_one_class_are_legal():
    assert metrics.fit_temperature(np.zeros((3, 4)), np.array([0, 1, 2])) == 1.0
    found = metrics.classification_metrics(np.ones((1, 1)), np.array([0]), 1.0)
    assert (found["accuracy"], found["nll"], found["ece"], found["stderr"]) == (1.0, 0.0, 0.0, 0.0)


def test_huge_scores_keep_a_finite_likelihood():
    scores = np.array([[1e300, -1e300], [0.0, 1e5]])
    assert metrics.nll(scores, np.array([0, 1])) == 0.0
    assert metrics.nll(scores[1:], np.array([0])) == 1e5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_with_its_row(bad):
    scores, labels = random_scores()
    scores[17, 2] = bad
    functions = [metrics.accuracy, metrics.balanced_accuracy, metrics.nll, metrics.brier]
    functions += [metrics.expected_calibration_error, metrics.fit_temperature]
    for function in functions:
        with pytest.raises(InputError, match="row 17"):
            function(scores, labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 7]), "0 … 6"),
        (np.array([-1, 0]), "0 … 6"),
        (np.array([0, 1, 2]), "shape"),
        (np.array([0.0, 1.0]), "integers"),
    ],
)
def test_labels_out_of_range_or_shape_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        metrics.accuracy(np.zeros((2, 7)), labels)


def test_no_rows_and_bad_temperatures_are_refused():
    with pytest.raises(InputError, match="n > 0"):
        metrics.accuracy(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))
    with pytest.raises(InputError, match="positive"):
        metrics.nll(np.zeros((1, 3)), np.array([0]), 0.0)


def test_regression_metrics_of_gaussian_data_come_out_as_drawn():
    rng = np.random.default_rng(1)
    means = rng.normal(size=(5000, 2))
    targets = means + rng.normal(size=means.shape) * np.array([0.5, 2.0])
    variance = metrics.fit_variance(means, targets)
    found = metrics.regression_metrics(means, targets, variance)
    likelihood = norm.logpdf(targets, means, np.sqrt(variance))
    assert np.sqrt(variance) == pytest.approx([0.5, 2.0], rel=0.05)
    assert found["mse"] == pytest.approx((0.25 + 4.0) / 2, rel=0.05)
    assert found["nll"] == pytest.approx(-likelihood.mean(), abs=1e-12)
    assert found["coverage"] == pytest.approx(0.95, abs=0.01)


def test_regression_refuses_what_has_no_likelihood():
    ones = np.ones((3, 1))
    with pytest.raises(InputError, match="residual"):
        metrics.fit_variance(ones, ones)
    with pytest.raises(InputError, match="variance"):
        metrics.regression_metrics(ones, ones, np.zeros(1))
    with pytest.raises(InputError, match="not finite"):
        metrics.regression_metrics(ones * np.nan, ones, np.ones(1))
