"""Solvers over workers that share K's rows, or the features', against K in one memory."""

import numpy as np
import pytest
import torch
from entk_problem import make_problem
from thread_group import together

from pipeline.solvers.cross import DenseCross
from pipeline.solvers.early_stopping import early_stopping
from pipeline.solvers.feature_kernel import ColumnPanels, FeatureCross, FeatureKernel
from pipeline.solvers.group import Alone, clipped, heights_of, shares
from pipeline.solvers.operator import DenseKernel, KernelOperator
from pipeline.solvers.ridge_path import fit_path
from pipeline.solvers.row_kernel import RowKernel

WORKERS = 3


@pytest.fixture(scope="module")
def problem():
    return make_problem(n=151, m=61)


@pytest.fixture(scope="module")
def phi(problem):
    """Features whose kernel the problem's K is: its training rows above its validation rows."""
    n, m = len(problem.K), len(problem.K_val)
    L = torch.linalg.cholesky(problem.K + 1e-12 * torch.eye(n, dtype=torch.float64))
    below = torch.linalg.solve_triangular(L, problem.K_val.T, upper=False).T
    assert below.shape == (m, n)
    return torch.cat([L, below])


def row_view(problem, group):
    parts = shares(len(problem.K), group.size)
    own = parts[group.rank]
    operator = RowKernel(problem.K[own], parts, group)
    return operator, DenseCross(problem.K_val[:, own], group)


def feature_view(problem, phi, group):
    n, m = len(problem.K), len(problem.K_val)
    parts, others = shares(n, group.size), shares(m, group.size)
    own, beside = parts[group.rank], others[group.rank]
    stacked = torch.cat([phi[:n][own], phi[n:][beside]])
    cross = FeatureCross(ColumnPanels(stacked, 40), len(phi[:n][own]), others, group)
    return FeatureKernel(ColumnPanels(phi[:n][own], 40), parts, group), cross


@pytest.fixture(params=["rows", "features"])
def view(request, problem, phi):
    def make(group):
        if request.param == "rows":
            return row_view(problem, group)
        return feature_view(problem, phi, group)

    return make


def test_products_are_those_of_the_whole(view, problem):
    V = torch.randn(151, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def work(group):
        operator, cross = view(group)
        own = V[operator.rows]
        product = operator.matvec(own)
        diagonal = operator.gather(operator.diagonal()[:, None])
        return operator.gather(product), cross.matvec(own), operator.inner(own, product), diagonal

    for KV, crossed, inner, diagonal in together(WORKERS, work):
        torch.testing.assert_close(KV, problem.K @ V, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(crossed, problem.K_val @ V, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(inner, V.T @ problem.K @ V, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(diagonal[:, 0], problem.K.diagonal(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("solver", ["lanczos", "cg", "nesterov"])
def test_the_path_is_that_of_one_memory(view, problem, solver):
    settings = {"solver": solver, "tol": 1e-9, "ridges": [1.0, 0.1, 0.01]}
    whole = fit_path(DenseKernel(problem.K), problem.Y, problem.K_val, problem.score, **settings)

    def work(group):
        operator, cross = view(group)
        found = fit_path(operator, problem.Y[operator.rows], cross, problem.score, **settings)
        return found, operator.gather(found.dual_weights)

    for found, alpha in together(WORKERS, work):
        assert found.ridge == pytest.approx(whole.ridge)
        assert [p.value for p in found.points] == [p.value for p in whole.points]
        assert found.certificate.converged
        change = (alpha - whole.dual_weights).norm() / whole.dual_weights.norm()
        assert change < 1e-6


def test_the_plane_of_stopping_times_is_that_of_one_memory(view, problem):
    settings = {"solver": "lanczos", "dynamics": "nesterov", "last_iteration": 200}
    whole = fit_path(problem.K, problem.Y, problem.K_val, problem.score, **settings)

    def work(group):
        operator, cross = view(group)
        return fit_path(operator, problem.Y[operator.rows], cross, problem.score, **settings)

    for found in together(2, work):
        assert found.plane.selected_iterations == whole.plane.selected_iterations
        assert found.plane.selected_ridge == pytest.approx(whole.plane.selected_ridge, rel=1e-6)
        assert np.mean(np.array(found.plane.values) == np.array(whole.plane.values)) > 0.99


def test_early_stopping_is_that_of_one_memory(view, problem):
    settings = {"max_iterations": 100, "solver": "plain"}
    whole = early_stopping(problem.K, problem.Y, 0.01, problem.K_val, problem.score, **settings)

    def work(group):
        operator, cross = view(group)
        own = problem.Y[operator.rows]
        found = early_stopping(operator, own, 0.01, cross, problem.score, **settings)
        return found.iteration, operator.gather(found.dual_weights)

    for iteration, alpha in together(2, work):
        assert iteration == whole.iteration
        torch.testing.assert_close(alpha, whole.dual_weights, rtol=1e-7, atol=1e-9)


def test_a_product_sends_n_times_k_or_p_times_k_numbers(problem, phi):
    n, p, k = 151, 151, 4
    V = torch.ones(n, k, dtype=torch.float64)

    def sent(make):
        def work(group):
            operator, _ = make(group)
            operator.matvec(V[operator.rows])
            return operator.sent

        return sum(together(WORKERS, work))

    assert sent(lambda group: row_view(problem, group)) == (WORKERS - 1) * n * k * 8
    by_features = sent(lambda group: feature_view(problem, phi, group))
    assert by_features == pytest.approx(2 * (WORKERS - 1) * p * k * 8, rel=1e-3)


def test_a_whole_kernel_by_rows_sends_nothing(problem):
    operator = RowKernel(problem.K)
    operator.matvec(problem.Y)
    assert isinstance(operator, KernelOperator)
    assert isinstance(FeatureKernel(problem.K), KernelOperator)
    assert isinstance(operator.group, Alone)
    assert operator.sent == 0


def test_shares_are_contiguous_and_equal_to_one_row():
    parts = shares(10, 4)
    assert heights_of(parts) == [2, 3, 2, 3]
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert heights_of(clipped(parts, 6)) == [2, 3, 1, 0]
    assert shares(2, 3)[0] == slice(0, 0)
