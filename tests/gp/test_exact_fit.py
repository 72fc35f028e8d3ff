import gpytorch
import pytest
import torch
from test_kernel import Single

from pipeline.gp import EmpiricalNTK
from pipeline.gp.evidence import Evidence
from pipeline.gp.exact_fit import fit_exact
from pipeline.gp.hyperparameters import fit_hyperparameters
from pipeline.types import InputError


def test_gpytorchs_fit_ends_where_the_closed_form_does(single):
    x = torch.randn(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(60, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = x.sin().sum(1, keepdim=True) + 0.3 * noise
    gp = Single(x, y[:, 0], EmpiricalNTK(single.model))
    found = fit_exact(gp)
    best = fit_hyperparameters([Evidence.of_rows(single.jacobian(x), y)])
    assert found.converged
    assert found.log_marginal_likelihood == pytest.approx(best.log_marginal_likelihood, abs=1e-3)
    assert gp.likelihood.noise.item() == pytest.approx(best.noise[0], rel=1e-2)
    assert gp.covar_module.outputscale.item() == pytest.approx(best.outputscale, rel=5e-2)


def test_too_few_iterations_are_said():
    x = torch.linspace(0, 1, 20, dtype=torch.float64)[:, None]
    gp = Single(x, (12 * x[:, 0]).sin(), gpytorch.kernels.RBFKernel())
    assert not fit_exact(gp, max_iterations=1).converged
    assert fit_exact(gp).iterations > 1


def test_more_rows_than_are_exact_are_refused(single):
    gp = Single(single.x, single.y[:, 0], gpytorch.kernels.RBFKernel())
    with pytest.raises(InputError, match="exact up to 5"):
        fit_exact(gp, exact_rows=5)
