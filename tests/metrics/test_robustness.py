import numpy as np
import pytest
from scipy.stats import norm

from pipeline.metrics.robustness import probit_line


def test_the_line_through_points_on_a_line_is_that_line():
    id_accuracy = np.array([0.3, 0.5, 0.7, 0.9])
    ood_accuracy = norm.cdf(0.8 * norm.ppf(id_accuracy) - 0.4)
    line = probit_line(id_accuracy, ood_accuracy)
    assert (line.slope, line.intercept) == pytest.approx((0.8, -0.4), abs=1e-12)
    assert (line.correlation, line.points) == (pytest.approx(1.0), 4)
    assert line.expected(0.6) == pytest.approx(norm.cdf(0.8 * norm.ppf(0.6) - 0.4))
    above = line.effective_robustness(0.6, line.expected(0.6) + 0.05)
    assert above == pytest.approx(0.05, abs=1e-12)


def test_shares_without_a_probit_do_not_count():
    line = probit_line([0.0, 0.4, 0.5, 0.6, 1.0], [0.1, 0.4, 0.5, 0.6, 1.0])
    assert line.points == 3
    assert (line.slope, line.intercept) == pytest.approx((1.0, 0.0), abs=1e-12)


@pytest.mark.parametrize("shares", [[], [0.5], [0.5, 0.6], [0.5, 0.5, 0.5, 0.6]])
def test_two_accuracies_make_no_line(shares):
    assert probit_line(shares, shares) is None
