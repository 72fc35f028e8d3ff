"""Outputscale and noise by maximum marginal likelihood, shared by the tasks that are given.

For given ratios ρ_t = σ_t²/s the best outputscale has a closed form, s = Σ quad_t(ρ_t) / Σ N_t c_t
over the tasks, so the search (SciPy's L-BFGS-B) is over log ρ alone: one number, or one a task.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from pipeline.gp.evidence import Evidence
from pipeline.types import InputError

STARTS = (1e-6, 1e-3, 1.0)
"""Ratios tried first, in units of K's largest eigenvalue: the likelihood has several maxima."""

RATIO_RANGE = (1e-12, 1e6)
"""Least and greatest ρ over λ_max: below, rounding of K decides; above, K does not matter."""

GRADIENT_TOLERANCE = 1e-4
"""Largest derivative by any log ρ, in nats, of a converged fit."""


TIE = 1e-6
"""Nats within which two maxima are equally likely."""


@dataclass(frozen=True)
class Hyperparameters:
    """What the tasks share, and how the search for it ended."""

    outputscale: float
    """s, the prior variance of every weight."""
    noise: tuple[float, ...]
    """σ²: one for all tasks, or one a task."""
    log_marginal_likelihood: float
    """Of all tasks together, in nats."""
    stderr: float
    """Its standard error, 0 where the log-determinant is exact."""
    gradient: float
    """Largest derivative of it by a logarithm of ρ that is not at its bound."""
    iterations: int
    converged: bool
    at_bound: bool
    """Whether a ratio lies at the end of its range, or others far from it are as likely: the data
    do not determine it."""

    def noise_of(self, task: int) -> float:
        """σ² of one task."""
        return self.noise[task if len(self.noise) > 1 else 0]


def fit_hyperparameters(
    evidences: Sequence[Evidence],
    *,
    outputscale: float | None = None,
    noise_per_task: bool = False,
    max_iterations: int = 200,
) -> Hyperparameters:
    """The s and σ² under which the tasks' residuals are likeliest.

    A given ``outputscale`` is kept (1 is the papers' prior) and only the noise is learned.
    """
    if not evidences:
        raise InputError("hyperparameters are fitted to at least one task; got none.")
    search = _Search(evidences, outputscale, noise_per_task)
    results = [search.run(math.log(start * search.unit), max_iterations) for start in STARTS]
    best = min(results, key=lambda result: float(result.fun))
    # One point says nothing of its noise: of ratios as likely as the best, the most cautious.
    far = [r for r in results if r.fun - best.fun < TIE and np.abs(r.x - best.x).max() > 1]
    if far:
        best = max([best, *far], key=lambda result: float(result.x.mean()))
    return search.described(best, undetermined=bool(far))


class _Search:
    """The negative log marginal likelihood as a function of log ρ."""

    def __init__(
        self, evidences: Sequence[Evidence], outputscale: float | None, noise_per_task: bool
    ) -> None:
        self.evidences, self.fixed = evidences, outputscale
        self.size = len(evidences) if noise_per_task else 1
        self.unit = max(evidence.largest for evidence in evidences)
        if self.unit == 0:
            raise InputError("the kernel is zero on every task: the network ignores its weights.")
        low, high = (math.log(end * self.unit) for end in RATIO_RANGE)
        self.bounds = [(low, high)] * self.size

    def run(self, start: float, max_iterations: int) -> OptimizeResult:
        return minimize(
            self.value_and_gradient,
            np.full(self.size, start),
            jac=True,
            method="L-BFGS-B",
            bounds=self.bounds,
            options={"maxiter": max_iterations, "ftol": 1e-15, "gtol": GRADIENT_TOLERANCE / 10},
        )

    def value_and_gradient(self, log_ratios: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.tensor(log_ratios, dtype=torch.float64, requires_grad=True)
        # Also where the caller has switched gradients off.
        with torch.enable_grad():
            value = self.objective(x)
        (gradient,) = torch.autograd.grad(value, x)
        return float(value.detach()), gradient.numpy()

    def objective(self, log_ratios: Tensor) -> Tensor:
        ratios = log_ratios.exp().expand(len(self.evidences))
        tasks = list(zip(self.evidences, ratios, strict=True))
        quadratic = torch.stack([evidence.quadratic(ratio) for evidence, ratio in tasks]).sum()
        logdets = torch.stack([e.columns * e.logdet(ratio)[0] for e, ratio in tasks]).sum()
        s = self.outputscale(quadratic)
        return 0.5 * (quadratic / s + self.count * (2 * math.pi * s).log() + logdets)

    @property
    def count(self) -> int:
        return sum(evidence.rows * evidence.columns for evidence in self.evidences)

    def outputscale(self, quadratic: Tensor) -> Tensor:
        if self.fixed is not None:
            return torch.as_tensor(self.fixed, dtype=torch.float64)
        if float(quadratic.detach()) == 0:
            raise InputError(
                "every residual is zero: no outputscale is likelier than 0. Give one, or targets "
                "that differ from the mean function."
            )
        return quadratic / self.count

    def described(self, result: OptimizeResult, *, undetermined: bool) -> Hyperparameters:
        value, gradient = self.value_and_gradient(result.x)
        ratios = torch.from_numpy(np.exp(result.x)).expand(len(self.evidences))
        tasks = list(zip(self.evidences, ratios, strict=True))
        quadratic = torch.stack([evidence.quadratic(ratio) for evidence, ratio in tasks]).sum()
        s = float(self.outputscale(quadratic))
        variance = sum((0.5 * e.columns * e.logdet(ratio)[1]) ** 2 for e, ratio in tasks)
        low, high = np.asarray(self.bounds).T
        ends = (result.x <= low + 1e-9) | (result.x >= high - 1e-9)
        steepest = float(np.abs(gradient[~ends]).max(initial=0.0))
        return Hyperparameters(
            outputscale=s,
            noise=tuple(float(s * ratio) for ratio in np.exp(result.x)),
            log_marginal_likelihood=-value,
            stderr=math.sqrt(variance),
            gradient=steepest,
            iterations=int(result.nit),
            converged=steepest <= GRADIENT_TOLERANCE * max(1.0, abs(value)),
            at_bound=undetermined or bool(ends.any()),
        )
