"""What each way of stopping does to an eigenvalue of K: spectral filters of ridge regression.

Dual weights are α = U g(Λ) UᵀY for every method here, started at zero, with x = λ + ridge:

- the ridge solution: g = 1/x;
- gradient flow until time t·η: g = (1 − exp(−tηx)) / x;
- t steps of gradient descent with step η: g = (1 − (1 − ηx)^t) / x;
- t steps of Nesterov's method: the recursion of ``nesterov``, run on the number x.

η = 1/(λ_max + ridge), so one step of each covers the same time.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Dynamics = Literal["flow", "descent", "nesterov"]

DYNAMICS: tuple[Dynamics, ...] = ("flow", "descent", "nesterov")


def ridge_filter(eigenvalues: Float[Tensor, " s"], ridge: float) -> Float[Tensor, " s"]:
    """1/(λ + ridge); zero where λ + ridge is zero, the minimum-norm solution."""
    x = eigenvalues + ridge
    return torch.where(x == 0, torch.zeros_like(x), 1 / x)


def stopping_filters(
    dynamics: Dynamics,
    eigenvalues: Float[Tensor, " s"],
    ridges: Float[Tensor, " r"],
    lambda_max: float,
    iterations: Sequence[int],
) -> Float[Tensor, "t r s"]:
    """The filter at each iteration count, for every ridge and eigenvalue."""
    eta = 1 / (lambda_max + ridges)[:, None]
    # In units of the step the recursions do not depend on the ridge: z is in [0, 1].
    z = (eta * (eigenvalues + ridges[:, None])).clamp(max=1.0)
    if dynamics == "nesterov":
        return eta * _nesterov(z, iterations)
    steps = torch.tensor(list(iterations), dtype=torch.float64, device=z.device)[:, None, None]
    exponent = -steps * z if dynamics == "flow" else steps * torch.log1p(-z)
    return eta * torch.where(z == 0, steps.expand_as(exponent), -torch.expm1(exponent) / z)


def momentum(s: float) -> tuple[float, float]:
    """(s_t − 1)/s_{t+1} and s_{t+1} of Nesterov's sequence."""
    following = (1 + (1 + 4 * s * s) ** 0.5) / 2
    return (s - 1) / following, following


def log_spaced_iterations(count: int, last: int) -> list[int]:
    """At most ``count`` distinct iteration counts from 1 to ``last``, evenly spaced in log."""
    if last <= count:
        return list(range(1, last + 1))
    chosen: list[int] = []
    for value in np.geomspace(1, last, count).round().astype(int).tolist():
        chosen.append(max(value, chosen[-1] + 1 if chosen else 1))
    return chosen


def _nesterov(z: Float[Tensor, "r s"], iterations: Sequence[int]) -> Float[Tensor, "t r s"]:
    wanted = {iteration: place for place, iteration in enumerate(iterations)}
    recorded = z.new_empty((len(iterations), *z.shape))
    alpha, y, s = torch.zeros_like(z), torch.zeros_like(z), 1.0
    keep = 1 - z
    for t in range(1, max(iterations) + 1):
        weight, s = momentum(s)
        following = (keep * y).add_(1.0)
        y = torch.lerp(alpha, following, 1 + weight)
        alpha = following
        if t in wanted:
            recorded[wanted[t]] = alpha
    return recorded
