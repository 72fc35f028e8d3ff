import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge
from sklearn.linear_model import Ridge

from pipeline.solvers import KernelRidge
from pipeline.solvers.auto import SOLVERS
from pipeline.types import InputError


@pytest.fixture(scope="module")
def linear() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    X, Z = rng.normal(size=(120, 40)), rng.normal(size=(15, 40))
    return {"X": X, "Z": Z, "K": X @ X.T, "K_test": Z @ X.T, "Y": rng.normal(size=(120, 3))}


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
def test_every_solver_predicts_as_scikit_learn_does(linear, solver):
    ours = KernelRidge(0.5, solver=solver, ridge_scale="absolute", tol=1e-10)
    theirs = SklearnKernelRidge(alpha=0.5, kernel="precomputed")
    predictions = ours.fit(linear["K"], linear["Y"]).predict(linear["K_test"])
    expected = theirs.fit(linear["K"], linear["Y"]).predict(linear["K_test"])
    np.testing.assert_allclose(predictions, expected, rtol=0, atol=1e-8)
    assert ours.certificate_.converged
    np.testing.assert_allclose(ours.dual_coef_, theirs.dual_coef_, rtol=0, atol=1e-8)


def test_the_matrix_free_linear_kernel_equals_primal_ridge(linear):
    ours = KernelRidge(2.0, kernel="linear", ridge_scale="absolute", tol=1e-10)
    primal = Ridge(alpha=2.0, fit_intercept=False).fit(linear["X"], linear["Y"])
    predictions = ours.fit(linear["X"], linear["Y"]).predict(linear["Z"])
    np.testing.assert_allclose(predictions, primal.predict(linear["Z"]), rtol=0, atol=1e-8)


def test_one_ridge_per_target_equals_separate_fits(linear):
    ridges = [0.1, 3.0, 0.1]
    ours = KernelRidge(ridges, ridge_scale="absolute").fit(linear["K"], linear["Y"])
    for column, ridge in enumerate(ridges):
        alone = KernelRidge(ridge, ridge_scale="absolute")
        alone.fit(linear["K"], linear["Y"][:, column])
        np.testing.assert_allclose(ours.dual_coef_[:, column], alone.dual_coef_, atol=1e-12)
    assert [certificate.ridge for certificate in ours.certificate_] == [0.1, 3.0]


def test_the_ridge_is_relative_to_the_mean_diagonal_by_default(linear):
    mean = linear["K"].diagonal().mean()
    assert KernelRidge(0.01).fit(linear["K"], linear["Y"]).ridge_ == pytest.approx(0.01 * mean)
    largest = np.linalg.eigvalsh(linear["K"])[-1]
    scaled = KernelRidge(0.01, ridge_scale="lambda_max").fit(linear["K"], linear["Y"])
    assert scaled.ridge_ == pytest.approx(0.01 * largest)


def test_it_clones_and_keeps_its_parameters():
    estimator = KernelRidge([0.1, 1.0], solver="cg", tol=1e-8, seed=3)
    assert clone(estimator).get_params() == estimator.get_params()
    assert estimator.set_params(solver="eigh").solver == "eigh"


def test_torch_in_gives_torch_out_and_numpy_gives_numpy(linear):
    K, Y = torch.from_numpy(linear["K"]).float(), torch.from_numpy(linear["Y"])
    fitted = KernelRidge(0.1).fit(K, Y)
    predictions = fitted.predict(torch.from_numpy(linear["K_test"]).float())
    assert isinstance(predictions, torch.Tensor)
    assert predictions.dtype == torch.float64
    assert isinstance(KernelRidge(0.1).fit(linear["K"], linear["Y"]).dual_coef_, np.ndarray)


def test_one_target_keeps_its_shape(linear):
    fitted = KernelRidge(0.1).fit(linear["K"], linear["Y"][:, 0])
    assert fitted.dual_coef_.shape == (120,)
    assert fitted.predict(linear["K_test"]).shape == (15,)


def test_a_read_only_kernel_is_read(linear):
    K = linear["K"].astype(np.float32)
    K.setflags(write=False)
    assert KernelRidge(0.1).fit(K, linear["Y"]).certificate_.converged


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_row_is_solved(solver):
    K, y = np.array([[2.0]]), np.array([3.0])
    fitted = KernelRidge(1.0, solver=solver, ridge_scale="absolute").fit(K, y)
    np.testing.assert_allclose(fitted.dual_coef_, [1.0], rtol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_zero_targets_of_one_class_are_solved_by_zero(linear, solver):
    fitted = KernelRidge(0.1, solver=solver).fit(linear["K"], np.zeros((120, 1)))
    assert not fitted.dual_coef_.any()
    assert fitted.certificate_.converged


def test_mistakes_are_named(linear):
    with pytest.raises(InputError, match="unknown solver 'lbfgs'"):
        KernelRidge(solver="lbfgs").fit(linear["K"], linear["Y"])
    with pytest.raises(InputError, match="unknown kernel"):
        KernelRidge(kernel="rbf").fit(linear["K"], linear["Y"])
    with pytest.raises(InputError, match="120 rows and Y has 119"):
        KernelRidge().fit(linear["K"], linear["Y"][1:])
    with pytest.raises(InputError, match="120 columns"):
        KernelRidge().fit(linear["K"], linear["Y"]).predict(linear["Z"])
    with pytest.raises(InputError, match="finite and at least 0"):
        KernelRidge(-1.0).fit(linear["K"], linear["Y"])
    with pytest.raises(InputError, match="needs K in memory"):
        KernelRidge(solver="cholesky", kernel="linear").fit(linear["X"], linear["Y"])
