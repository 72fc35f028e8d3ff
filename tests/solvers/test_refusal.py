import numpy as np
import pytest
import torch
from entk_problem import entk_spectrum
from reference import dense_ridge, kernel_with_spectrum

from pipeline.solvers import KernelRidge
from pipeline.solvers.operator import DenseKernel
from pipeline.solvers.refusal import KernelError, RidgeBelowRoundingError, check_kernel, check_ridge
from pipeline.types import InputError

Y = torch.ones(150, 1, dtype=torch.float64)


def altered(K: torch.Tensor, row: int, column: int, value: float, mirror: bool = True):
    K = K.clone()
    K[row, column] = value
    if mirror:
        K[column, row] = value
    return K


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kernel_passes(problem, dtype):
    check_kernel(problem.K.to(dtype))


def test_each_fault_names_its_entry(problem):
    K = problem.K
    with pytest.raises(KernelError, match=r"K\[7, 90\] is nan"):
        check_kernel(altered(K, 7, 90, float("nan"), mirror=False))
    with pytest.raises(KernelError, match=r"K\[3, 3\] is inf"):
        check_kernel(altered(K, 3, 3, float("inf")))
    with pytest.raises(KernelError, match=r"not symmetric: K\[7, 90\]"):
        check_kernel(altered(K, 7, 90, float(K[7, 90]) + 1e-4, mirror=False))
    with pytest.raises(KernelError, match=r"indefinite: its diagonal entry 5"):
        check_kernel(altered(K, 5, 5, -0.1))
    with pytest.raises(KernelError, match=r"indefinite: K\[7, 90\]²"):
        check_kernel(altered(K, 7, 90, 3.0))
    with pytest.raises(KernelError, match="singular: every entry is zero"):
        check_kernel(torch.zeros(3, 3))
    with pytest.raises(KernelError, match="square"):
        check_kernel(torch.zeros(3, 4))
    with pytest.raises(KernelError, match="no rows"):
        check_kernel(torch.zeros(0, 0))


def test_a_sample_without_gradient_is_no_fault(problem):
    K = problem.K.clone()
    K[4], K[:, 4] = 0, 0
    check_kernel(K)
    assert KernelRidge(0.1).fit(K, Y).certificate_.converged


def test_faulty_targets_name_their_row(problem):
    bad = Y.clone()
    bad[11] = float("nan")
    with pytest.raises(InputError, match=r"Y\[11, 0\]"):
        KernelRidge(0.1).fit(problem.K, bad)


def test_sixteen_bit_kernels_are_refused(problem):
    with pytest.raises(InputError, match="float32 or float64"):
        KernelRidge(0.1).fit(problem.K.bfloat16(), Y)


@pytest.mark.parametrize("solver", ["auto", "cg", "nesterov", "lanczos", "eigh"])
def test_ridge_zero_is_legal_on_a_well_conditioned_kernel(solver):
    K = kernel_with_spectrum(torch.linspace(0.5, 2.0, 150)).float()
    fitted = KernelRidge(0.0, solver=solver).fit(K, Y)
    expected = dense_ridge(K, Y, 0.0)
    assert float((fitted.dual_coef_ - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("solver", ["auto", "cg", "nesterov", "lanczos", "eigh"])
@pytest.mark.parametrize("n", [150, 450])
def test_ridge_zero_is_refused_with_the_floor_on_a_singular_one(solver, n):
    spectrum = entk_spectrum(n)
    spectrum[-30:] = 0
    K = kernel_with_spectrum(spectrum).float()
    targets = torch.ones(n, 1, dtype=torch.float64)
    with pytest.raises(RidgeBelowRoundingError) as refused:
        KernelRidge(0.0, solver=solver).fit(K, targets)
    floor = refused.value.floor
    assert 1e-8 < floor < 1e-6
    allowed = KernelRidge(1.01 * floor, ridge_scale="absolute").fit(K, targets)
    assert allowed.certificate_.residual < 1e-6


def test_duplicate_rows_need_a_ridge_and_share_their_weight(problem):
    twice = np.r_[0:150, 0]
    K = problem.K.numpy()[np.ix_(twice, twice)].astype(np.float32)
    targets = np.ones(151)
    with pytest.raises(RidgeBelowRoundingError):
        KernelRidge(0.0).fit(K, targets)
    alpha = KernelRidge(0.01).fit(K, targets).dual_coef_
    assert alpha[0] == pytest.approx(alpha[150])


def test_float64_kernels_have_a_lower_floor(problem):
    K = kernel_with_spectrum(torch.logspace(0, -10, 150))
    check_ridge(DenseKernel(K), 1e-12, 1.0)
    with pytest.raises(RidgeBelowRoundingError):
        check_ridge(DenseKernel(K.float()), 1e-12, 1.0)


@pytest.mark.parametrize("n", [60, 450])
@pytest.mark.parametrize("solver", ["cholesky", "cg", "lanczos", "eigh", "nesterov"])
def test_an_indefinite_kernel_is_refused_by_every_solver_with_a_row(solver, n):
    v = torch.ones(n, dtype=torch.float64)
    v[7] = 3
    K = torch.eye(n, dtype=torch.float64) - 1.3 * torch.outer(v, v) / v.square().sum()
    check_kernel(K)
    targets = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(KernelError, match=r"indefinite.* row 7\."):
        KernelRidge(1e-3, solver=solver, ridge_scale="absolute").fit(K, targets)
