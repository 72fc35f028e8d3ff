"""Nesterov's method on the primal objective, written in the dual weights.

The objective is ‖Φθ − Y‖² + ridge‖θ‖² with θ = Φᵀα. With α₀ = y₀ = 0, s₀ = 1 and step
η = 1/(λ_max + ridge):

    α_{t+1} = y_t + η (Y − (K + ridge·I) y_t)
    s_{t+1} = (1 + √(1 + 4 s_t²)) / 2
    y_{t+1} = α_{t+1} + ((s_t − 1)/s_{t+1}) (α_{t+1} − α_t)

This is not gradient descent on the objective as a function of α, which would carry an extra K.
Early-stopping curves run without restart: each iterate is then a fixed polynomial in K applied to
Y, and the stopping time does not depend on the residual.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.filters import momentum
from pipeline.solvers.operator import KernelOperator, column_norms
from pipeline.solvers.solution import Solution


def nesterov_iterates(
    operator: KernelOperator,
    Y: Float[Tensor, "n k"],
    ridge: float,
    lambda_max: float,
    iterations: Sequence[int],
) -> Iterator[tuple[int, Float[Tensor, "n k"]]]:
    """(t, α_t) at the iterations asked for (ascending), without restart."""
    eta = 1 / (lambda_max + ridge)
    wanted = set(iterations)
    alpha, y, s = torch.zeros_like(Y), torch.zeros_like(Y), 1.0
    for t in range(1, max(iterations, default=0) + 1):
        following = y + eta * (Y - operator.matvec(y) - ridge * y)
        weight, s = momentum(s)
        y = following + weight * (following - alpha)
        alpha = following
        if t in wanted:
            yield t, alpha


def descent_iterates(
    operator: KernelOperator,
    Y: Float[Tensor, "n k"],
    ridge: float,
    lambda_max: float,
    iterations: Sequence[int],
) -> Iterator[tuple[int, Float[Tensor, "n k"]]]:
    """(t, α_t) of plain gradient descent with the same step."""
    eta = 1 / (lambda_max + ridge)
    wanted = set(iterations)
    alpha = torch.zeros_like(Y)
    for t in range(1, max(iterations, default=0) + 1):
        alpha = alpha + eta * (Y - operator.matvec(alpha) - ridge * alpha)
        if t in wanted:
            yield t, alpha


def nesterov(
    operator: KernelOperator,
    Y: Float[Tensor, "n k"],
    ridge: float,
    lambda_max: float,
    *,
    tol: float = 1e-6,
    max_iterations: int = 20_000,
    start: Float[Tensor, "n k"] | None = None,
) -> Solution:
    """The ridge solution by Nesterov's method with adaptive restart, to residual ``tol``.

    Momentum is dropped whenever it points against the gradient (O'Donoghue & Candès 2015,
    "Adaptive restart for accelerated gradient schemes", eq. 12), target by target: targets
    converge at their own pace. The gradient test is taken in the metric of the dual residual.
    """
    eta = 1 / (lambda_max + ridge)
    norms = column_norms(operator, Y)
    alpha = torch.zeros_like(Y) if start is None else start.clone()
    y, s = alpha.clone(), torch.ones(Y.shape[1], dtype=Y.dtype, device=Y.device)
    for t in range(1, max_iterations + 1):
        residual = Y - operator.matvec(y) - ridge * y
        if bool((column_norms(operator, residual) <= tol * norms).all()):
            return Solution(y, iterations=t, converged=True)
        following = y + eta * residual
        step = following - alpha
        against = operator.inner(residual, step).diagonal() < 0
        s_next = (1 + (1 + 4 * s * s).sqrt()) / 2
        weight = torch.where(against, torch.zeros_like(s), (s - 1) / s_next)
        s = torch.where(against, torch.ones_like(s), s_next)
        y = following + weight * step
        alpha = following
    return Solution(y, iterations=max_iterations, converged=False)
