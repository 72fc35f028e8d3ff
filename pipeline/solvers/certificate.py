"""How far an answer can be trusted: measured after the solve, in float64, from K itself."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.operator import KernelOperator, column_norms
from pipeline.solvers.refusal import rounding_floor
from pipeline.solvers.solution import Solution
from pipeline.solvers.spectrum import Spectrum


@dataclass(frozen=True)
class Certificate:
    """A fit's true residual and what bounds its accuracy."""

    solver: str
    ridge: float
    """Absolute: added to K's diagonal."""
    residual: float
    """max over targets of ‖(K + ridge·I)α − Y‖ / ‖Y‖, in float64."""
    tol: float
    """The residual that was asked for."""
    iterations: int
    """Products with K that the solver took; 0 for a direct solver."""
    converged: bool
    """Whether the true residual is within ``tol``."""
    precision: str
    """Arithmetic of the products, and what K's entries were computed in."""
    effective_dimension: float
    """tr K(K + ridge·I)⁻¹"""
    effective_dimension_stderr: float
    """0 where the spectrum is exact."""
    condition: float | None
    """(λ_max + ridge) / (λ_min + ridge); None where λ_min + ridge is not positive."""
    lambda_max: float
    lambda_min: float
    """Smallest eigenvalue, or Ritz value (an upper bound) where ``spectrum`` is 'estimated'."""
    spectrum: str
    """'exact' or 'estimated'"""
    rounding_floor: float
    """Error of K's entries as an eigenvalue: smaller ridges lean on λ_min alone."""


def certify(
    operator: KernelOperator,
    Y: Float[Tensor, "n k"],
    ridge: float,
    solution: Solution,
    spectrum: Spectrum,
    *,
    solver: str,
    tol: float,
) -> Certificate:
    """The certificate of dual weights, from one more product with K."""
    residual = true_residual(operator, Y, ridge, solution.dual_weights)
    dimension, stderr = spectrum.effective_dimension(ridge)
    condition = spectrum.condition(ridge)
    entries = "float64" if operator.error < 1e-12 else "float32"
    return Certificate(
        solver=solver,
        ridge=ridge,
        residual=residual,
        tol=tol,
        iterations=solution.iterations,
        converged=residual <= tol,
        precision=f"float64 products, {entries} kernel",
        effective_dimension=dimension,
        effective_dimension_stderr=stderr,
        condition=condition if condition != float("inf") else None,
        lambda_max=spectrum.lambda_max,
        lambda_min=spectrum.lambda_min,
        spectrum="exact" if spectrum.exact else "estimated",
        rounding_floor=rounding_floor(operator, spectrum.lambda_max),
    )


def true_residual(
    operator: KernelOperator, Y: Float[Tensor, "n k"], ridge: float, alpha: Float[Tensor, "n k"]
) -> float:
    """max over targets of ‖(K + ridge·I)α − Y‖ / ‖Y‖; a zero target counts its absolute error."""
    residuals = column_norms(operator, operator.matvec(alpha) + ridge * alpha - Y)
    norms = column_norms(operator, Y)
    return float((residuals / torch.where(norms > 0, norms, torch.ones_like(norms))).max())
