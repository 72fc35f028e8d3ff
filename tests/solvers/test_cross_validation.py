import numpy as np
import pytest
import torch
from reference import dense_ridge
from sklearn.linear_model import RidgeCV

from pipeline.solvers.cross_validation import gcv, leave_one_out_predictions
from pipeline.solvers.eigh import eigh_system
from pipeline.solvers.filters import ridge_filter
from pipeline.solvers.operator import DenseKernel
from pipeline.solvers.ridge_path import fit_path
from pipeline.solvers.select import Grade, squared_error
from pipeline.solvers.spectrum import spectrum_of


def test_leave_one_out_is_refitting_without_the_row(problem):
    system = eigh_system(DenseKernel(problem.K), problem.Y)
    found = leave_one_out_predictions(system, problem.Y, ridge_filter(system.eigenvalues, 0.01))
    for i in (0, 99):
        rest = [j for j in range(150) if j != i]
        refitted = dense_ridge(problem.K[rest][:, rest], problem.Y[rest], 0.01)
        torch.testing.assert_close(found[i], problem.K[i, rest] @ refitted)


@pytest.mark.parametrize("solver", ["auto", "cholesky"])
def test_leave_one_out_selects_as_ridge_cv_does(solver):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 20))
    y = X @ rng.normal(size=20) + 2.0 * rng.normal(size=80)
    ridges = [100.0, 30.0, 10.0, 3.0, 1.0, 0.3]
    theirs = RidgeCV(alphas=ridges, fit_intercept=False, store_cv_results=True).fit(X, y)
    mean_square = squared_error(torch.from_numpy(y)[:, None], torch.zeros(1))

    def score(predictions):
        value = mean_square(predictions).value
        return Grade(torch.tensor([value], dtype=torch.float64))  # without spread: no ties

    ours = fit_path(X @ X.T, y, None, score, solver=solver, ridges=ridges, ridge_scale="absolute")
    assert ours.ridge == pytest.approx(theirs.alpha_)
    expected = -theirs.cv_results_.mean(axis=0)
    np.testing.assert_allclose([point.value for point in ours.points], expected)


def test_gcv_is_its_formula(problem):
    operator, ridge = DenseKernel(problem.K), 0.01
    alpha = dense_ridge(problem.K, problem.Y, ridge)
    hat = problem.K @ torch.linalg.inv(problem.K + ridge * torch.eye(150).double())
    residual = problem.Y - hat @ problem.Y
    expected = residual.square().mean() / (1 - hat.trace() / 150) ** 2
    found = gcv(operator, spectrum_of(operator), ridge, alpha)
    assert found == pytest.approx(float(expected))
    assert gcv(operator, spectrum_of(operator), 0.0, alpha) is None


@pytest.mark.parametrize("solver", ["eigh", "lanczos", "cg", "cholesky"])
def test_gcv_selects_without_validation_by_every_solver(problem, solver):
    ridges = [1.0, 0.1, 0.01, 1e-3]
    found = fit_path(
        problem.K, problem.Y, None, "gcv", solver=solver, ridges=ridges, ridge_scale="absolute"
    )
    exact = fit_path(
        problem.K, problem.Y, None, "gcv", solver="eigh", ridges=ridges, ridge_scale="absolute"
    )
    assert found.ridge == exact.ridge
    values = [point.gcv for point in found.points]
    np.testing.assert_allclose(values, [point.gcv for point in exact.points], rtol=1e-5)
