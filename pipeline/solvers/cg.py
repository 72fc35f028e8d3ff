"""Block conjugate gradients: all targets share one Krylov space.

O'Leary's block CG in the form without breakdown of Ji & Li (2017, "A breakdown-free block
conjugate gradient method"): the search directions are replaced by an orthonormal basis of their
span, so that dependent or finished targets drop out instead of dividing by zero.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.krylov import orthonormal
from pipeline.solvers.operator import KernelOperator, column_norms
from pipeline.solvers.refusal import KernelError
from pipeline.solvers.solution import Solution

Preconditioner = Callable[[Float[Tensor, "n k"]], Float[Tensor, "n k"]]

STAGNATION = 50
"""Iterations without a new smallest residual after which rounding is taken to be the limit."""


def cg(
    operator: KernelOperator,
    Y: Float[Tensor, "n k"],
    ridge: float,
    *,
    tol: float = 1e-6,
    max_iterations: int = 5_000,
    preconditioner: Preconditioner | None = None,
    start: Float[Tensor, "n k"] | None = None,
) -> Solution:
    """(K + ridge·I)⁻¹Y to relative residual ``tol`` in every target, from ``start`` or zero."""
    norms = column_norms(operator, Y)
    X = torch.zeros_like(Y) if start is None else start.clone()
    R = Y.clone() if start is None else Y - operator.matvec(X) - ridge * X
    precondition = preconditioner or (lambda residual: residual)
    P = _directions(operator, precondition(R))
    best, since = float("inf"), 0
    for t in range(max_iterations + 1):
        worst = _relative(column_norms(operator, R), norms)
        if worst <= tol or P.shape[1] == 0:
            return Solution(X, iterations=t, converged=worst <= tol)
        best, since = (worst, 0) if worst < best else (best, since + 1)
        if since > STAGNATION or t == max_iterations:
            break
        Q = operator.matvec(P) + ridge * P
        curvature = _factor(operator, P, Q)
        step = torch.cholesky_solve(operator.inner(P, R), curvature)
        X += P @ step
        R -= Q @ step
        Z = precondition(R)
        P = _directions(operator, Z - P @ torch.cholesky_solve(operator.inner(Q, Z), curvature))
    return Solution(X, iterations=t, converged=False)


def _directions(operator: KernelOperator, Z: Float[Tensor, "n k"]) -> Float[Tensor, "n r"]:
    # Each column is measured by itself: a target near its solution keeps its direction.
    return orthonormal(operator, Z, column_norms(operator, Z))


def _factor(
    operator: KernelOperator, P: Float[Tensor, "n r"], Q: Float[Tensor, "n r"]
) -> Float[Tensor, "r r"]:
    """Cholesky factor of PᵀAP; refused where K + ridge·I has negative curvature."""
    curvature = operator.inner(P, Q)
    factor, info = torch.linalg.cholesky_ex((curvature + curvature.T) / 2)
    if int(info):
        direction = P[:, int(info) - 1]
        raise KernelError(
            "K + ridge·I is singular or indefinite: conjugate gradients found a direction of "
            f"non-positive curvature, largest at row {int(direction.abs().argmax())}. "
            "Use a larger ridge."
        )
    return factor


def _relative(residuals: Tensor, norms: Tensor) -> float:
    """The largest residual relative to its target; a zero target is solved by zero."""
    nonzero = norms > 0
    return float((residuals[nonzero] / norms[nonzero]).max()) if bool(nonzero.any()) else 0.0
