"""Block conjugate gradients: all targets share one Krylov space.

Dubrulle's variant (2001, "Retooling the method of block conjugate gradients", BCGrQ): the residual
block is kept as Q S with orthonormal Q. Without that, nearly dependent residuals spoil conjugacy:
on a kernel of n = 1,500 at ridge 1e-6 λ_max O'Leary's form took 110 iterations, target-by-target
CG 182, this one 42. Directions that have converged drop out of Q, so blocks may shrink.

Preconditioning is symmetric, by a root C⁻¹ of the preconditioner: A becomes C⁻¹AC⁻¹.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.krylov import orthonormal
from pipeline.solvers.operator import KernelOperator, column_norms
from pipeline.solvers.refusal import KernelError
from pipeline.solvers.solution import Solution

Root = Callable[[Float[Tensor, "n k"]], Float[Tensor, "n k"]]
"""R ↦ P^{-1/2} R for a symmetric positive definite preconditioner P."""

RESTARTS = 3
"""Times the residual is computed anew when the recursion's runs ahead of the true one."""


def cg(
    operator: KernelOperator,
    Y: Float[Tensor, "n k"],
    ridge: float,
    *,
    tol: float = 1e-6,
    max_iterations: int = 5_000,
    root: Root | None = None,
    start: Float[Tensor, "n k"] | None = None,
) -> Solution:
    """(K + ridge·I)⁻¹Y to relative residual ``tol`` in every target, from ``start`` or zero."""
    X = torch.zeros_like(Y) if start is None else start.clone()
    R = Y if start is None else Y - operator.matvec(X) - ridge * X
    bounds = tol * column_norms(operator, Y)
    taken = 0
    for _ in range(1 + RESTARTS):
        steps = _descend(operator, ridge, X, R, bounds, max_iterations - taken, root)
        taken += steps
        R = Y - operator.matvec(X) - ridge * X
        if bool((column_norms(operator, R) <= bounds).all()):
            return Solution(X, iterations=taken, converged=True)
        if taken >= max_iterations:
            break
    return Solution(X, iterations=taken, converged=False)


def _descend(
    operator: KernelOperator,
    ridge: float,
    X: Float[Tensor, "n k"],
    R: Float[Tensor, "n k"],
    bounds: Float[Tensor, " k"],
    max_iterations: int,
    root: Root | None,
) -> int:
    """Improve X in place until the recursion's residual meets the bounds; iterations taken."""
    C_inverse = root or (lambda V: V)
    Q, S = _factored(operator, C_inverse(R))
    P = C_inverse(Q)
    R = R.clone()
    for t in range(max_iterations):
        if Q.shape[1] == 0 or bool((column_norms(operator, R) <= bounds).all()):
            return t
        AP = operator.matvec(P) + ridge * P
        curvature = _factor(operator, P, AP)
        step = torch.cholesky_solve(S, curvature)
        X += P @ step
        R -= AP @ step
        inverse = torch.cholesky_inverse(curvature)
        Q, change = _factored(operator, Q - C_inverse(AP @ inverse))
        S = change @ S
        P = C_inverse(Q) + P @ change.T
    return max_iterations


def _factored(
    operator: KernelOperator, W: Float[Tensor, "n k"]
) -> tuple[Float[Tensor, "n r"], Float[Tensor, "r k"]]:
    """W = Q S with orthonormal Q."""
    Q = orthonormal(operator, W, column_norms(operator, W))
    return Q, operator.inner(Q, W)


def _factor(
    operator: KernelOperator, P: Float[Tensor, "n r"], AP: Float[Tensor, "n r"]
) -> Float[Tensor, "r r"]:
    """Cholesky factor of PᵀAP; refused where K + ridge·I has negative curvature."""
    curvature = operator.inner(P, AP)
    factor, info = torch.linalg.cholesky_ex((curvature + curvature.T) / 2)
    if int(info):
        direction = P[:, int(info) - 1]
        raise KernelError(
            "K + ridge·I is singular or indefinite: conjugate gradients found a direction of "
            f"non-positive curvature, largest at row {int(direction.abs().argmax())}. "
            "Use a larger ridge."
        )
    return factor
