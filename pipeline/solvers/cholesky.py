"""The direct solve at one ridge: a float64 Cholesky factor of K + ridge·I.

The factor also gives what iterations cannot: leave-one-out residuals, the log marginal likelihood
and predictive variances.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.eigh import dense
from pipeline.solvers.operator import KernelOperator
from pipeline.solvers.refusal import KernelError
from pipeline.solvers.solution import Solution


def cholesky_factor(operator: KernelOperator, ridge: float) -> Float[Tensor, "n n"]:
    """Lower L with LLᵀ = K + ridge·I, float64; refused with the row where it breaks down."""
    A = dense(operator, "cholesky").to(torch.float64, copy=True)
    A.diagonal().add_(ridge)
    L, info = torch.linalg.cholesky_ex(A)
    if int(info):
        raise KernelError(
            f"K + {ridge:.3g}·I is not positive definite: its Cholesky factorization breaks down "
            f"at row {int(info) - 1}. K is singular or indefinite there (a duplicate of an earlier "
            "row?); use a larger ridge."
        )
    return L


def cholesky(operator: KernelOperator, Y: Float[Tensor, "n k"], ridge: float) -> Solution:
    """(K + ridge·I)⁻¹Y from a Cholesky factor."""
    weights = torch.cholesky_solve(Y, cholesky_factor(operator, ridge))
    return Solution(weights, iterations=0, converged=True)


def leave_one_out_residuals(
    L: Float[Tensor, "n n"], dual_weights: Float[Tensor, "n k"]
) -> Float[Tensor, "n k"]:
    """Yᵢ minus the prediction of the fit without row i: αᵢ / [(K + ridge·I)⁻¹]ᵢᵢ."""
    return dual_weights / inverse_diagonal(L)[:, None]


def inverse_diagonal(L: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """The diagonal of (LLᵀ)⁻¹: squared column norms of L⁻¹."""
    identity = torch.eye(L.shape[0], dtype=L.dtype, device=L.device)
    inverse = torch.linalg.solve_triangular(L, identity, upper=False)
    return inverse.square().sum(dim=0)


def log_marginal_likelihood(
    L: Float[Tensor, "n n"], Y: Float[Tensor, "n k"], dual_weights: Float[Tensor, "n k"]
) -> Float[Tensor, " k"]:
    """log N(y | 0, K + ridge·I) of each target: −½ yᵀα − Σ log Lᵢᵢ − (n/2) log 2π."""
    constant = L.diagonal().log().sum() + L.shape[0] / 2 * math.log(2 * math.pi)
    return -(Y * dual_weights).sum(dim=0) / 2 - constant


def predictive_variance(
    L: Float[Tensor, "n n"], K_cross: Float[Tensor, "m n"], diagonal: Float[Tensor, " m"]
) -> Float[Tensor, " m"]:
    """k(x, x) − k_xᵀ(K + ridge·I)⁻¹k_x, the noise-free variance of a Gaussian process."""
    whitened = torch.linalg.solve_triangular(L, K_cross.to(L).T, upper=False)
    return diagonal.to(L) - whitened.square().sum(dim=0)
