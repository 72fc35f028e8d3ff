import dataclasses
import json

import pytest
import torch
from reference import dense_ridge

from pipeline.solvers import KernelRidge
from pipeline.solvers.certificate import true_residual
from pipeline.solvers.operator import DenseKernel


def test_the_residual_is_the_worst_targets(problem):
    alpha = dense_ridge(problem.K, problem.Y, 0.1)
    alpha[:, 1] *= 1.5
    residual = true_residual(DenseKernel(problem.K), problem.Y, 0.1, alpha)
    assert residual == pytest.approx(0.5)


def test_not_converging_is_a_result_that_says_so(problem):
    fitted = KernelRidge(1e-5, solver="nesterov", tol=1e-15).fit(problem.K, problem.Y)
    assert fitted.certificate_.converged is False
    assert fitted.certificate_.residual > 1e-15


def test_it_states_the_spectrum_and_is_plain_json(problem):
    fitted = KernelRidge(0.1, ridge_scale="absolute").fit(problem.K.float(), problem.Y)
    certificate = fitted.certificate_
    exact = torch.linalg.eigvalsh(problem.K)
    assert certificate.effective_dimension == pytest.approx(
        float((exact / (exact + 0.1)).sum()), rel=1e-5
    )
    assert certificate.spectrum == "exact"
    assert certificate.precision == "float64 products, float32 kernel"
    assert certificate.rounding_floor == pytest.approx(1.19e-7 * float(exact[-1]), rel=0.01)
    json.dumps(dataclasses.asdict(certificate), allow_nan=False)
