import pytest
import torch
from dense_gp import log_evidence, posterior

from pipeline.gp.function_space import FunctionSpace
from pipeline.gp.parameter_space import ParameterSpace
from pipeline.solvers.refusal import KernelError
from pipeline.types import InputError

S, NOISE = 0.3, 0.05
SPACES = [FunctionSpace, ParameterSpace]


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    J = torch.randn(13, 9, generator=generator, dtype=torch.float64)
    J_test = torch.randn(5, 9, generator=generator, dtype=torch.float64)
    return J, J_test, torch.randn(13, 2, generator=generator, dtype=torch.float64)


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("noise", [NOISE, torch.linspace(0.01, 0.2, 13, dtype=torch.float64)])
def test_posteriors_equal_dense_algebra(rows, space, noise):
    J, J_test, r = rows
    found = space.of(J, r, S, noise)
    mean, covariance = posterior(J, J_test, r, S, noise)
    close(found.mean(J_test), mean)
    close(found.covariance(J_test), covariance)
    close(found.variance(J_test), covariance.diagonal())
    close(J_test @ found.weights(), mean)
    wanted = log_evidence(J, r, S, noise)
    assert found.log_marginal_likelihood() == pytest.approx(float(wanted), rel=1e-10)


def test_function_space_equals_parameter_space_as_corrected(rows):
    J, J_test, r = rows
    function, parameter = (space.of(J, r, S, NOISE) for space in SPACES)
    close(function.mean(J_test), parameter.mean(J_test))
    close(function.covariance(J_test), parameter.covariance(J_test))
    # The parameter-space covariance of equation 2, its σ² written out.
    P = J.T @ J + NOISE / S * torch.eye(9, dtype=torch.float64)
    close(parameter.covariance(J_test), NOISE * J_test @ torch.linalg.solve(P, J_test.T))


@pytest.mark.parametrize("space", SPACES)
def test_block_updates_equal_refitting(rows, space):
    J, J_test, r = rows
    whole = space.of(J, r, S, NOISE)
    grown = space.of(J[:4], r[:4], S, NOISE).extended(J[4:9], r[4:9], NOISE)
    grown = grown.extended(J[9:], r[9:], NOISE)
    close(grown.mean(J_test), whole.mean(J_test))
    close(grown.covariance(J_test), whole.covariance(J_test))
    assert grown.log_marginal_likelihood() == pytest.approx(whole.log_marginal_likelihood())


def test_float32_rows_are_multiplied_in_float64(rows):
    J, J_test, r = rows
    low = FunctionSpace.of(J.float(), r, S, NOISE)
    high = FunctionSpace.of(J.float().double(), r, S, NOISE)
    close(low.mean(J_test.float()), high.mean(J_test.float().double()))
    close(low.variance(J_test.float()), high.variance(J_test.float().double()))


def test_duplicate_rows_without_noise_are_refused_by_number(rows):
    J, _, r = rows
    J = J[:5].clone()
    J[3] = J[1]
    with pytest.raises(KernelError, match="rows 1 and 3"):
        FunctionSpace.of(J, r[:5], S, 0.0)
    FunctionSpace.of(J, r[:5], S, 1e-3)


def test_more_rows_than_columns_need_noise(rows):
    J, _, r = rows
    with pytest.raises(KernelError, match="13 rows without noise in 9 columns"):
        FunctionSpace.of(J, r, S, 0.0)
    with pytest.raises(InputError, match="noise"):
        ParameterSpace.of(J, r, S, 0.0)


def test_noise_below_zero_is_refused(rows):
    J, _, r = rows
    with pytest.raises(InputError, match="at least 0"):
        FunctionSpace.of(J, r, S, -0.1)


def test_rows_that_combine_others_are_refused_without_noise():
    line = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    rows = torch.cat([line, torch.zeros(3, 4, dtype=torch.float64)], dim=1)
    with pytest.raises(KernelError, match=r"at row 2: .* larger noise variance"):
        FunctionSpace.of(rows, torch.zeros(3, 1, dtype=torch.float64), 1.0, 0.0)
