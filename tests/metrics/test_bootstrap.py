import numpy as np
import pytest

from pipeline.metrics.bootstrap import mean_intervals


def test_the_interval_of_a_mean_is_that_of_the_normal_theory_on_many_rows():
    values = np.random.default_rng(0).normal(size=(1, 2000))
    half = 1.96 * values.std() / np.sqrt(values.size)
    low, high = mean_intervals(values)[0]
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_nineteen_of_twenty_intervals_hold_the_truth():
    rng = np.random.default_rng(1)
    found = [mean_intervals(rng.random((1, 300)) < 0.7, resamples=400)[0] for _ in range(200)]
    assert np.mean([low <= 0.7 <= high for low, high in found]) == pytest.approx(0.95, abs=0.04)


def test_rows_are_resampled_together_so_differences_are_paired():
    a = np.random.default_rng(2).random(500)
    b = a - 0.01
    own_a, own_b, paired = mean_intervals(np.stack([a, b, a - b]))
    np.testing.assert_allclose(own_a - own_b, 0.01, rtol=1e-9)
    np.testing.assert_allclose(paired, 0.01, rtol=1e-9)


def test_a_paired_interval_equals_a_loop_over_resamples():
    rng = np.random.default_rng(3)
    a, b = (rng.random((2, 40)) < 0.6).astype(float)
    draws = np.random.default_rng(0).integers(0, 40, (2000, 40))
    means = [(a[rows] - b[rows]).mean() for rows in draws]
    expected = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose(mean_intervals((a - b)[None])[0], expected, atol=0.02)


def test_equal_values_and_a_single_row_have_an_interval_of_no_width():
    np.testing.assert_array_equal(mean_intervals(np.ones((1, 50))), [[1.0, 1.0]])
    np.testing.assert_array_equal(mean_intervals(np.full((2, 1), 3.0)), [[3.0, 3.0]] * 2)
