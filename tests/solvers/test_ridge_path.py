import numpy as np
import pytest
import torch
from entk_problem import make_problem
from reference import dense_ridge, iterate_descent, iterate_nesterov

from pipeline.solvers.feature_kernel import FeatureKernel
from pipeline.solvers.grid import coarse, refined
from pipeline.solvers.refusal import RidgeBelowRoundingError
from pipeline.solvers.ridge_path import fit_path
from pipeline.solvers.select import Grade
from pipeline.types import InputError

SPECTRAL = ["lanczos", "eigh"]
SEPARATE = ["cg", "nesterov", "cholesky"]


def one(value: float) -> Grade:
    """A grade without spread, so without ties but equal ones."""
    return Grade(torch.tensor([value], dtype=torch.float64))


@pytest.fixture(scope="module")
def larger():
    return make_problem(n=500, m=100, classes=3)


@pytest.mark.parametrize("solver", [*SPECTRAL, *SEPARATE])
def test_every_solver_scores_each_ridge_as_a_dense_solve(problem, solver):
    ridges = [0.3, 0.03, 0.003]
    found = fit_path(
        problem.K, problem.Y, problem.K_val, problem.score, solver=solver, ridges=ridges,
        ridge_scale="absolute", tol=1e-8,
    )  # fmt: skip
    assert [point.ridge for point in found.points] == ridges
    for point in found.points:
        alpha = dense_ridge(problem.K, problem.Y, point.ridge)
        grade = problem.score(problem.K_val @ alpha)
        assert (point.value, point.stderr) == pytest.approx((grade.value, grade.stderr))
    expected = dense_ridge(problem.K, problem.Y, found.ridge)
    torch.testing.assert_close(found.dual_weights, expected, rtol=0, atol=1e-5)
    assert found.certificate.converged
    assert found.certificate.ridge == found.ridge_absolute


def test_lanczos_and_its_exact_twin_select_the_same(larger):
    paths = [
        fit_path(
            larger.K.float(), larger.Y, larger.K_val, larger.score, solver=solver,
            dynamics="nesterov", last_iteration=300,
        )
        for solver in SPECTRAL
    ]  # fmt: skip
    krylov, exact = paths
    assert krylov.ridge == pytest.approx(exact.ridge, rel=1e-6)
    torch.testing.assert_close(krylov.dual_weights, exact.dual_weights, rtol=1e-3, atol=1e-3)
    for ours, twin in zip(krylov.points, exact.points, strict=True):
        if ours.converged:
            assert ours.value == pytest.approx(twin.value)
    assert krylov.plane is not None
    assert exact.plane is not None
    assert krylov.plane.selected_iterations == exact.plane.selected_iterations
    counted = np.array(krylov.plane.converged)
    assert counted.all()
    np.testing.assert_allclose(krylov.plane.values, exact.plane.values, atol=0.011)


@pytest.mark.parametrize("dynamics", ["descent", "nesterov"])
@pytest.mark.parametrize("solver", SPECTRAL)
def test_the_plane_scores_plain_iterates(problem, solver, dynamics):
    ridges = [0.1, 0.001]
    found = fit_path(
        problem.K, problem.Y, problem.K_val, problem.score, solver=solver, ridges=ridges,
        ridge_scale="absolute", dynamics=dynamics, last_iteration=60,
    )  # fmt: skip
    plane = found.plane
    assert plane is not None
    assert len(plane.iterations) == 24
    lambda_max = found.certificate.lambda_max
    iterate = iterate_descent if dynamics == "descent" else iterate_nesterov
    for row, ridge in enumerate(ridges):
        for column in (0, 9, 23):
            alpha = iterate(problem.K, problem.Y, ridge, lambda_max, plane.iterations[column])
            value = problem.score(problem.K_val @ alpha).value
            assert plane.values[row][column] == pytest.approx(value)


def test_a_telescope_finds_the_grid_and_refines_twice(problem):
    seen = []
    found = fit_path(
        problem.K, problem.Y, problem.K_val, problem.score, solver="cg", emit=seen.append
    )
    ridges = [point.ridge for point in found.points]
    assert ridges == sorted(ridges, reverse=True)
    assert len(seen) == len(ridges)
    around = sorted(abs(np.log10(r / found.ridge)) for r in ridges)[1]
    assert around < 0.3
    assert any(point.ridge == found.ridge for point in found.points)


def test_ties_go_to_the_larger_ridge(problem):
    found = fit_path(problem.K, problem.Y, problem.K_val, lambda predictions: one(0.5))
    assert found.ridge == max(point.ridge for point in found.points)
    assert found.at_edge


def test_a_matrix_free_kernel_takes_the_path_too():
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(90, 40, generator=generator, dtype=torch.float64)
    Y, phi_val = phi[:, :2].clone(), torch.randn(20, 40, generator=generator).double()

    def score(predictions):
        return one(-float((predictions - phi_val[:, :2]).square().mean()))

    free = fit_path(FeatureKernel(phi), Y, phi_val @ phi.T, score)
    dense = fit_path(phi @ phi.T, Y, phi_val @ phi.T, score, solver="eigh")
    assert free.solver == "lanczos"
    assert free.certificate.converged
    assert free.value == pytest.approx(dense.value, abs=1e-8)


def test_one_row_and_one_class_have_a_path():
    unit = torch.ones(1, 1, dtype=torch.float64)
    for solver in (*SPECTRAL, *SEPARATE):
        found = fit_path(2 * unit, unit, 2 * unit, lambda p: one(-float((p - 1).abs().max())),
                         solver=solver, ridges=[1.0, 0.5], ridge_scale="absolute")  # fmt: skip
        assert found.ridge == 0.5
        flat = fit_path(2 * unit, 0 * unit, 2 * unit, lambda p: one(float(p.abs().max())),
                        solver=solver, ridges=[1.0], ridge_scale="absolute")  # fmt: skip
        assert flat.value == 0
        assert flat.certificate.converged


def test_asked_for_ridges_below_rounding_are_refused(problem):
    spectrum_rank_one = torch.ones(30, 30)
    with pytest.raises(RidgeBelowRoundingError):
        fit_path(spectrum_rank_one, torch.ones(30), spectrum_rank_one, lambda p: one(0.0),
                 ridges=[1.0, 0.0])  # fmt: skip


def test_what_a_solver_cannot_do_is_said(problem):
    with pytest.raises(InputError, match="leave-one-out needs"):
        fit_path(problem.K, problem.Y, None, lambda p: one(0.0), solver="cg")
    with pytest.raises(InputError, match="plane of stopping times"):
        fit_path(problem.K, problem.Y, problem.K_val, problem.score, solver="cg", dynamics="flow")
    with pytest.raises(InputError, match="no ridges"):
        fit_path(problem.K, problem.Y, problem.K_val, problem.score, ridges=[])


def test_grids_cover_and_refine():
    assert coarse([100.0, 0.1]) == pytest.approx([100, 10, 1, 0.1])
    assert refined([100.0, 1.0, 0.01], 1) == pytest.approx(
        [10**1.5, 10, 10**0.5, 10**-0.5, 0.1, 10**-1.5]
    )
    assert refined([1.0], 0) == []
    assert refined([1.0, 0.0], 0) == []
