"""Products with the Fisher information, against the matrix made from explicit parts."""

from collections.abc import Callable

import pytest
import torch
from jacobian_helpers import relative_error
from operator_networks import NAMES, made
from reference import dense_fisher, explicit_jacobian
from torch import Tensor, distributions, nn

from pipeline.jacobian import FiniteDifferenceFisher, FisherOperator
from pipeline.jacobian.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
)
from pipeline.types import InputError, Inputs

LIKELIHOODS = [Gaussian(0.3), Categorical(), Bernoulli(), HeteroscedasticGaussian()]


def predicted(likelihood: Likelihood, f: Tensor) -> distributions.Distribution:
    """One sample's predictive distribution, from the definition."""
    match likelihood:
        case Gaussian(noise):
            return distributions.Independent(distributions.Normal(f, noise**0.5), 1)
        case HeteroscedasticGaussian():
            return distributions.Normal(f[0], 1e-5 + nn.functional.softplus(f[1]))
        case Categorical():
            return distributions.Categorical(logits=f)
        case _:
            return distributions.Independent(distributions.Bernoulli(logits=f), 1)


def hessians(likelihood: Likelihood, f: Tensor) -> Tensor:
    """H (n, k, k): second derivatives of the divergence where it is smallest."""

    def of(row: Tensor) -> Tensor:
        p = predicted(likelihood, row)
        return torch.autograd.functional.hessian(
            lambda g: distributions.kl_divergence(p, predicted(likelihood, g)), row
        )

    return torch.stack([of(row) for row in f.detach()])


def run(model: nn.Module, inputs: Inputs) -> Tensor:
    return model(inputs) if isinstance(inputs, Tensor) else model(**inputs)


def matrix_of(model: nn.Module, inputs: Inputs, k: int, likelihood: Likelihood) -> Tensor:
    return dense_fisher(
        explicit_jacobian(model, inputs, k), hessians(likelihood, run(model, inputs))
    )


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_divergences_are_those_of_the_distributions(likelihood: Likelihood) -> None:
    f, other = torch.randn(3, 2).double(), torch.randn(3, 2).double()
    wanted = sum(
        distributions.kl_divergence(predicted(likelihood, a), predicted(likelihood, b))
        for a, b in zip(f, other, strict=True)
    )
    assert float(likelihood.divergence(f, other)) == pytest.approx(float(wanted), rel=1e-12)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(("n", "m"), [(5, 3), (1, 1)])
def test_products_equal_those_of_the_matrix(likelihood: Likelihood, n: int, m: int) -> None:
    model, inputs, k = made("mlp", n)
    F = FisherOperator(model, inputs, likelihood, batch=2, chunk=2)
    V = torch.randn(F.shape[0], m).double()
    wanted = matrix_of(model, inputs, k, likelihood) @ V
    assert relative_error(F.matmul(V), wanted) <= 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_products_equal_the_matrix_on_any_network(name: str) -> None:
    model, inputs, k = made(name, 3)
    likelihood = Bernoulli() if k == 1 else Categorical()
    F = FisherOperator(model, inputs, likelihood, batch=2)
    v = torch.randn(F.shape[0]).double()
    wanted = matrix_of(model, inputs, k, likelihood) @ v
    assert relative_error(F.matmul(v), wanted) <= 1e-12


def test_chosen_parameters_give_their_own_block() -> None:
    model, inputs, k = made("mlp", 3)
    F = FisherOperator(model, inputs, Categorical(), parameters=["0.weight"])
    block = matrix_of(model, inputs, k, Categorical())[:18, :18]
    v = torch.randn(18).double()
    assert relative_error(F.matmul(v), block @ v) <= 1e-12


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_finite_differences_are_as_good_as_their_reported_error(
    likelihood: Likelihood, dtype: torch.dtype
) -> None:
    model, inputs, _ = made("mlp", 5)
    assert isinstance(inputs, Tensor)
    exact = FisherOperator(model, inputs, likelihood)
    V = exact.matmul(torch.randn(exact.shape[0], 3).double())
    wanted = exact.matmul(V)
    fast = FiniteDifferenceFisher(model.to(dtype), inputs.to(dtype), likelihood, batch=2)
    assert fast.error <= (1e-5 if dtype == torch.float64 else 2e-2)
    errors = (fast.matmul(V.to(dtype)).double() - wanted).norm(dim=0) / wanted.norm(dim=0)
    assert float(errors.max()) <= 10 * fast.error


def test_the_step_is_the_best_of_its_scan_for_the_given_directions() -> None:
    model, inputs, _ = made("residual", 4)
    probes = torch.randn(sum(p.numel() for p in model.parameters()), 2).double()
    fast = FiniteDifferenceFisher(model, inputs, Categorical(), probes=probes)
    assert fast.error == min(fast.scan.errors)
    assert fast.scan.errors[fast.scan.steps.index(fast.step)] == fast.error
    # Rounding at one end, curvature at the other.
    assert fast.scan.errors[0] > 10 * fast.error < fast.scan.errors[-1] * 10


def test_the_product_of_nothing_is_nothing() -> None:
    model, inputs, _ = made("mlp", 2)
    fast = FiniteDifferenceFisher(model, inputs, Gaussian())
    assert float(fast.matmul(torch.zeros(fast.shape[0]).double()).norm()) == 0


def written(bias: Tensor) -> None:
    with torch.no_grad():
        bias.add_(1)


def replaced(bias: Tensor) -> None:
    bias.data = bias.data + 1


@pytest.mark.parametrize("change", [written, replaced])
def test_a_network_that_changed_is_refused(change: Callable[[Tensor], None]) -> None:
    model, inputs, _ = made("mlp", 2)
    fast = FiniteDifferenceFisher(model, inputs, Gaussian())
    change(model[0].bias)
    with pytest.raises(InputError, match="changed after"):
        fast.matmul(torch.ones(fast.shape[0]).double())


def test_mistakes_are_explained() -> None:
    model, inputs, _ = made("residual", 2)
    with pytest.raises(InputError, match="two outputs"):
        FisherOperator(model, inputs, HeteroscedasticGaussian()).matmul(
            torch.ones(sum(p.numel() for p in model.parameters())).double()
        )
    with pytest.raises(InputError, match="must be positive"):
        Gaussian(0.0)
