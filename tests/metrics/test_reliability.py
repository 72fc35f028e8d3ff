import numpy as np
import pytest

from pipeline import metrics


def test_the_bins_add_up_to_the_expected_calibration_error():
    rng = np.random.default_rng(0)
    labels = rng.integers(5, size=400)
    scores = rng.normal(size=(400, 5)) + np.eye(5)[labels]
    found = metrics.reliability(scores, labels, 0.6)
    assert sum(found.counts) == 400
    gaps = [
        count * abs(confidence - share)
        for count, confidence, share in zip(
            found.counts, found.confidence, found.accuracy, strict=True
        )
        if count
    ]
    expected = metrics.expected_calibration_error(scores, labels, 0.6)
    assert sum(gaps) / 400 == pytest.approx(expected, abs=1e-9)


def test_an_empty_bin_has_neither_confidence_nor_accuracy():
    found = metrics.reliability(np.array([[50.0, 0.0]]), np.array([0]))
    assert found.counts == [0] * 14 + [1]
    assert found.accuracy == [None] * 14 + [1.0]
