import numpy as np
import pytest

from pipeline.metrics.agreement import agreement, error_consistency


def test_agreement_is_the_share_of_equal_predictions():
    classes = np.array([[0, 1, 2, 0], [0, 1, 1, 1], [2, 2, 2, 2]])
    found = agreement(classes)
    for a in range(3):
        for b in range(3):
            assert found[a, b] == np.mean(classes[a] == classes[b])


def test_error_consistency_is_one_for_equal_mistakes_and_zero_for_independent_ones():
    rng = np.random.default_rng(0)
    right = rng.random((2, 20_000)) < 0.7
    found = error_consistency(right)
    assert found[0][0] == pytest.approx(1.0)
    assert found[0][1] == pytest.approx(0.0, abs=0.03)
    both = np.mean(right[0] == right[1])
    a, b = right.mean(1)
    chance = a * b + (1 - a) * (1 - b)
    assert found[0][1] == pytest.approx((both - chance) / (1 - chance), abs=1e-12)


def test_two_methods_without_mistakes_have_no_consistency():
    assert error_consistency(np.ones((2, 5), dtype=bool)) == [[None, None], [None, None]]
