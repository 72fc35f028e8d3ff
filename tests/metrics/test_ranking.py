import numpy as np
import pytest

from pipeline.metrics.classification import classification_metrics
from pipeline.metrics.ranking import auroc
from pipeline.metrics.regression import regression_metrics


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=60)
    ranking = np.round(rng.normal(size=60) + labels, 1)
    above = ranking[labels == 1][:, None] - ranking[labels == 0][None, :]
    expected = np.mean((above > 0) + 0.5 * (above == 0))
    assert auroc(ranking, labels) == pytest.approx(expected, abs=1e-12)
    scores = np.stack([np.zeros(60), ranking], axis=1)
    assert classification_metrics(scores, labels, 1.0)["auroc"] == pytest.approx(expected)
    targets = np.where(labels, 3.5, -1.0)[:, None]
    found = regression_metrics(ranking[:, None], targets, np.ones(1))
    assert found["auroc"] == pytest.approx(expected)


def test_more_or_fewer_than_two_kinds_have_no_auroc():
    assert auroc(np.arange(3.0), np.array([0, 1, 2])) is None
    assert auroc(np.arange(3.0), np.ones(3)) is None
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=(20, 3)), rng.integers(3, size=20)
    assert "auroc" not in classification_metrics(scores, labels, 1.0)
