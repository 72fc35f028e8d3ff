"""Hyperparameters of any GPyTorch model by maximum marginal likelihood, with SciPy's L-BFGS-B.

For kernels that have more than a scale, such as RBF or deep kernels; a linearized network's own
outputscale and noise come cheaper from :mod:`pipeline.gp.hyperparameters`. Log-determinants are
exact (Cholesky) up to ``exact_rows`` training rows: a stochastic one would mislead the line search.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from pipeline.types import InputError, MissingExtraError


@dataclass(frozen=True)
class ExactFit:
    """How the search ended."""

    log_marginal_likelihood: float
    """Of all training rows, in nats; priors included."""
    gradient: float
    """Its largest derivative by a raw hyperparameter."""
    iterations: int
    converged: bool


def fit_exact(
    model: Any, *, max_iterations: int = 200, exact_rows: int = 10_000, tol: float = 1e-4
) -> ExactFit:
    """Fit an ``ExactGP``'s hyperparameters in place; the model is left in eval mode.

    ``converged`` says whether every derivative is below ``tol`` times max(1, |log likelihood|).
    """
    try:
        import gpytorch
    except ImportError:
        raise MissingExtraError("gpytorch", "gp", "fit_exact") from None
    n = len(model.train_targets)
    if n > exact_rows:
        raise InputError(
            f"the model has {n} training rows, and log-determinants are exact up to {exact_rows}. "
            "Fit on fewer rows, or raise exact_rows."
        )
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise InputError("the model has no hyperparameters to fit.")
    marginal = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        load(x, parameters)
        model.zero_grad()
        value = -marginal(model(*model.train_inputs), model.train_targets).sum() * n
        value.backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        return value.item(), flattened(gradients)

    model.train()
    with gpytorch.settings.max_cholesky_size(exact_rows + 1):
        result = minimize(
            value_and_gradient,
            flattened(parameters),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_iterations, "ftol": 1e-15, "gtol": tol / 10},
        )
        value, gradient = value_and_gradient(result.x)
    model.zero_grad()
    model.eval()
    steepest = float(np.abs(gradient).max())
    return ExactFit(-value, steepest, int(result.nit), steepest <= tol * max(1.0, abs(value)))


def flattened(tensors: list[Any]) -> np.ndarray:
    """All entries, one after the other, in float64."""
    return nn.utils.parameters_to_vector(t.detach().double() for t in tensors).cpu().numpy()


def load(x: np.ndarray, parameters: list[nn.Parameter]) -> None:
    """Write a flat vector into the parameters."""
    start = 0
    with torch.no_grad():
        for parameter in parameters:
            values = torch.from_numpy(x[start : start + parameter.numel()])
            parameter.copy_(values.reshape(parameter.shape))
            start += parameter.numel()
