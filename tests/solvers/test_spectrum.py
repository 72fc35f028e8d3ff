import pytest
import torch
from entk_problem import entk_spectrum
from reference import kernel_with_spectrum

from pipeline.solvers.operator import DenseKernel
from pipeline.solvers.ridge_scale import default_ridges
from pipeline.solvers.spectrum import (
    estimate_spectrum,
    exact_spectrum,
    settled_spectrum,
    spectrum_of,
)


@pytest.mark.parametrize("n", [1, 2, 5, 300])
def test_lambda_max_is_bounded_from_above_and_tightly(n):
    exact = entk_spectrum(n)
    found = estimate_spectrum(DenseKernel(kernel_with_spectrum(exact)))
    assert float(exact[0]) * (1 - 1e-12) <= found.lambda_max <= float(exact[0]) * (1 + 1e-8)


def test_lambda_max_is_bounded_where_the_top_is_crowded():
    exact = torch.cat([torch.linspace(0.999, 1, 100), torch.linspace(0, 0.9, 200)]).double()
    found = estimate_spectrum(DenseKernel(kernel_with_spectrum(exact)), steps=4)
    assert 1 <= found.lambda_max < 1.2


def test_the_effective_dimension_is_within_its_standard_errors():
    exact = entk_spectrum(500)
    found = estimate_spectrum(DenseKernel(kernel_with_spectrum(exact)))
    for ridge in (1e-1, 1e-3, 1e-4):
        value, stderr = found.effective_dimension(ridge)
        assert abs(value - float((exact / (exact + ridge)).sum())) < 4 * stderr
        assert stderr < 0.2 * value


def test_small_kernels_get_the_exact_spectrum(problem):
    found = spectrum_of(DenseKernel(problem.K))
    exact = torch.linalg.eigvalsh(problem.K)
    assert found.exact
    assert found.lambda_min == pytest.approx(float(exact[0]))
    value, stderr = found.effective_dimension(1e-3)
    assert value == pytest.approx(float((exact / (exact + 1e-3)).sum()))
    assert stderr == 0
    assert found.condition(0.5) == pytest.approx(float((exact[-1] + 0.5) / (exact[0] + 0.5)))


def test_the_same_seed_gives_the_same_bytes():
    operator = DenseKernel(kernel_with_spectrum(entk_spectrum(450)))
    first, second = estimate_spectrum(operator, seed=3), estimate_spectrum(operator, seed=3)
    assert first.lambda_max == second.lambda_max
    assert torch.equal(first.weights, second.weights)


def test_the_free_share_is_what_the_effective_dimension_leaves():
    exact = entk_spectrum(300)
    found = exact_spectrum(exact)
    for ridge in (1e-1, 1e-3):
        assert found.free_share(ridge) == pytest.approx(float((ridge / (exact + ridge)).mean()))
        assert found.free_share(ridge) == pytest.approx(
            1 - found.effective_dimension(ridge)[0] / len(exact)
        )


def test_a_settled_spectrum_knows_the_low_end_which_a_plain_estimate_misses():
    """Beside what the same probes give once their space is exhausted."""
    exact = torch.logspace(2, -3, 1200, dtype=torch.float64)
    operator = DenseKernel(kernel_with_spectrum(exact))
    ridge = default_ridges(operator, float(exact[0]))[-1]
    limit = estimate_spectrum(operator, steps=200).free_share(ridge)
    assert limit == pytest.approx(exact_spectrum(exact).free_share(ridge), rel=0.2)
    assert estimate_spectrum(operator).free_share(ridge) < 0.9 * limit
    assert settled_spectrum(operator).free_share(ridge) == pytest.approx(limit, rel=0.05)


def test_a_spectrum_that_has_settled_grows_no_further():
    operator = DenseKernel(kernel_with_spectrum(torch.linspace(1, 2, 600, dtype=torch.float64)))
    assert settled_spectrum(operator).nodes.numel() == 32 * 6
