import numpy as np
import pytest

from pipeline.gram import gram_primal


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("weights", [None, np.full(6, 0.5), np.linspace(1, 2, 6)])
@pytest.mark.parametrize(("n", "rows"), [(1, 4), (23, 5)])
def test_primal_gram_equals_the_float64_product(n, rows, weights, dtype):
    rng = np.random.default_rng(0)
    x, Y = rng.standard_normal((n, 6)).astype(dtype), rng.standard_normal((n, 2))
    weighted = x.astype(float) * (np.ones(6) if weights is None else weights)
    C, moments = gram_primal(x, Y, weights=weights, panel_rows=rows)
    np.testing.assert_allclose(C, weighted.T @ weighted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments, weighted.T @ Y, rtol=1e-5, atol=1e-5)
    assert C.dtype == np.float32


def test_targets_may_be_left_out():
    assert gram_primal(np.ones((3, 2), np.float32))[1] is None
