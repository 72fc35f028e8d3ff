"""Stochastic variational inference: a mean-field Gaussian over θ′ for classification at any n.

    q(θ′) = N(m, diag softplus(ρ)²),   ELBO = Σ E_q log softmax(μ + Jθ′)[y] − KL(q ‖ N(0, sI))

by Adam on minibatches, one reparameterized draw of θ′ a step (Hoffman et al. 2013; Maddox et al.
2021, appendix A).
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.gp.categorical import log_likelihood
from pipeline.gp.classification import LinearizedClassifier, labelled_rows
from pipeline.gp.linearization import Linearization
from pipeline.gp.rows import kernel, times
from pipeline.types import InputError, Inputs

WINDOW = 50
"""Steps whose mean ELBO tells whether the fit still improves."""


@dataclass(frozen=True)
class MeanField:
    """q(θ′) = N(m, diag v)."""

    mean_weights: Float[Tensor, "p 1"]
    variances: Float[Tensor, " p"]

    def weights(self) -> Float[Tensor, "p 1"]:
        """m."""
        return self.mean_weights

    def mean(self, rows: Float[Tensor, "m*k p"]) -> Float[Tensor, "m*k 1"]:
        """Logits − μ at m."""
        return times(rows, self.mean_weights)

    def covariance(self, rows: Float[Tensor, "m*k p"]) -> Float[Tensor, "m*k m*k"]:
        """Covariance of the logits, J diag(v) Jᵀ."""
        scaled = rows * self.variances.sqrt().to(rows)
        return kernel(scaled, scaled)


@dataclass(frozen=True)
class VariationalOptions:
    """How q is fitted."""

    steps: int = 2_000
    """Minibatches."""
    batch: int = 64
    """Samples of a minibatch."""
    learning_rate: float = 1e-2
    """Adam's, in units of the prior deviation √s."""
    seed: int = 0
    """Of minibatches and draws."""


@dataclass(frozen=True)
class VariationalFit:
    """q and the course of its fit."""

    posterior: MeanField
    elbo: float
    """Mean of the last steps, in nats over all samples."""
    elbo_stderr: float
    """Standard error of that mean, as if steps were independent."""
    converged: bool
    """Whether the last 50 steps are no better than the 50 before them by two standard errors."""

    @classmethod
    def of(
        cls,
        rows: Float[Tensor, "n*k p"],
        offsets: Float[Tensor, "n k"],
        Y: Float[Tensor, "n k"],
        outputscale: float,
        options: VariationalOptions,
    ) -> Self:
        """Maximize the ELBO given rows, mean function and one-hot labels."""
        if not outputscale > 0 or min(options.steps, options.batch) < 1:
            raise InputError(
                "the outputscale must be above 0, steps and batch at least 1; got "
                f"{outputscale}, {options.steps} and {options.batch}."
            )
        elbos, q = _maximized(rows, offsets, Y, outputscale, options)
        window = min(WINDOW, max(len(elbos) // 2, 1))
        last, before = elbos[-window:], elbos[-2 * window : -window]
        stderr = float(last.std() / window**0.5) if window > 1 else float("inf")
        gain = float(last.mean() - before.mean()) if len(before) else float("inf")
        converged = window == WINDOW and gain < 2 * stderr
        return cls(q, float(last.mean()), stderr, converged)


@torch.inference_mode(False)
def variational_classifier(
    linearization: Linearization,
    inputs: Inputs,
    labels: Int[Tensor, " n"],
    *,
    outputscale: float,
    options: VariationalOptions | None = None,
) -> tuple[LinearizedClassifier, VariationalFit]:
    """A classifier from q(θ′), and how its fit went."""
    found, Y = labelled_rows(linearization, inputs, labels)
    fit = VariationalFit.of(
        found.rows, found.offsets, Y, outputscale, options or VariationalOptions()
    )
    return LinearizedClassifier(linearization, fit.posterior, fit.converged), fit


@torch.enable_grad()
def _maximized(
    rows: Tensor, offsets: Tensor, Y: Tensor, outputscale: float, options: VariationalOptions
) -> tuple[Tensor, MeanField]:
    """The ELBO of every step, and q after the last."""
    n, k = Y.shape
    by_sample = rows.reshape(n, k, -1).double()
    generator = torch.Generator().manual_seed(options.seed)
    # In units of the prior deviation the prior is N(0, I).
    deviation = outputscale**0.5
    m = torch.zeros(rows.shape[1], dtype=torch.float64, requires_grad=True)
    rho = torch.zeros_like(m).requires_grad_()
    adam = torch.optim.Adam([m, rho], lr=options.learning_rate)
    elbos = []
    for _ in range(options.steps):
        chosen = torch.randint(n, (min(options.batch, n),), generator=generator)
        scale = F.softplus(rho)
        draw = m + scale * torch.randn(len(m), generator=generator, dtype=torch.float64)
        f = offsets[chosen] + by_sample[chosen] @ (deviation * draw)
        divergence = 0.5 * (m.square() + scale.square() - 1 - 2 * scale.log()).sum()
        elbo = log_likelihood(f, Y[chosen]) * n / len(chosen) - divergence
        adam.zero_grad()
        (-elbo / n).backward()
        adam.step()
        elbos.append(elbo.detach())
    mean, scale = deviation * m.detach(), deviation * F.softplus(rho.detach())
    return torch.stack(elbos), MeanField(mean[:, None], scale.square())
