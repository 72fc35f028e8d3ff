"""Likelihoods of a network's outputs: their Fisher information H and their divergence.

H (k×k, per sample) is the Fisher information in the outputs f, and the Hessian of the divergence
KL(p_f ‖ p_f′) in f′ at f′ = f; for all but the heteroscedastic one, which uses its expectation, it
is the Hessian of the negative log-likelihood as well.

| likelihood | outputs | H |
|---|---|---|
| :class:`Gaussian` | means | I/σ² |
| :class:`HeteroscedasticGaussian` | (μ, s), σ = 10⁻⁵ + softplus(s) | diag(1/σ², 2σ′(s)²/σ²) |
| :class:`Categorical` | logits of k classes, q = softmax(f) | diag(q) − qqᵀ |
| :class:`Bernoulli` | k independent logits, q = sigmoid(f) | diag(q(1 − q)) |
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, distributions

from pipeline.types import InputError

SMALLEST_DEVIATION = 1e-5
"""Added to softplus(s), in the outputs' unit."""


class Likelihood(Protocol):
    """What a Fisher product asks of a likelihood."""

    def hessian_product(
        self, f: Float[Tensor, "n k"], u: Float[Tensor, "n k"]
    ) -> Float[Tensor, "n k"]:
        """H u, sample by sample, H at the outputs ``f``."""
        ...

    def divergence(self, f: Float[Tensor, "n k"], other: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
        """Σ_i KL(p_{f_i} ‖ p_{other_i})."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """Normal observations around the outputs with one fixed variance σ²."""

    noise: float = 1.0
    """σ², in squared units of the outputs."""

    def __post_init__(self) -> None:
        if not self.noise > 0:
            raise InputError(f"the noise variance must be positive, got {self.noise}.")

    def hessian_product(self, f: Tensor, u: Tensor) -> Tensor:
        """u/σ²."""
        return u / self.noise

    def divergence(self, f: Tensor, other: Tensor) -> Tensor:
        """Σ (f − f′)²/(2σ²)."""
        return (f - other).square().sum() / (2 * self.noise)


@dataclass(frozen=True)
class HeteroscedasticGaussian:
    """Normal observations whose standard deviation is the second of two outputs."""

    def hessian_product(self, f: Tensor, u: Tensor) -> Tensor:
        """(u₁/σ², 2 (σ′/σ)² u₂)."""
        sigma = _deviation(f)
        slope = torch.sigmoid(f[:, 1])
        return torch.stack([u[:, 0] / sigma**2, 2 * (slope / sigma) ** 2 * u[:, 1]], 1)

    def divergence(self, f: Tensor, other: Tensor) -> Tensor:
        """Between normal distributions."""
        return _divergence(_normal(f), _normal(other))


@dataclass(frozen=True)
class Categorical:
    """One of k classes, the outputs its logits."""

    def hessian_product(self, f: Tensor, u: Tensor) -> Tensor:
        """q ∘ (u − ⟨q, u⟩)."""
        q = f.softmax(1)
        return q * (u - (q * u).sum(1, keepdim=True))

    def divergence(self, f: Tensor, other: Tensor) -> Tensor:
        """Σ_j q_j (log q_j − log q′_j)."""
        log_q = f.log_softmax(1)
        return (log_q.exp() * (log_q - other.log_softmax(1))).sum()


@dataclass(frozen=True)
class Bernoulli:
    """k independent yes-or-no answers, the outputs their logits."""

    def hessian_product(self, f: Tensor, u: Tensor) -> Tensor:
        """q (1 − q) u."""
        q = f.sigmoid()
        return q * (1 - q) * u

    def divergence(self, f: Tensor, other: Tensor) -> Tensor:
        """Between Bernoulli distributions."""
        return _divergence(
            distributions.Bernoulli(logits=f, validate_args=False),
            distributions.Bernoulli(logits=other, validate_args=False),
        )


def _deviation(f: Tensor) -> Tensor:
    if f.shape[1] != 2:
        raise InputError(
            "the heteroscedastic likelihood needs two outputs (μ, s), "
            f"the network has {f.shape[1]}."
        )
    return SMALLEST_DEVIATION + F.softplus(f[:, 1])


def _normal(f: Tensor) -> distributions.Normal:
    return distributions.Normal(f[:, 0], _deviation(f), validate_args=False)


def _divergence(p: distributions.Distribution, q: distributions.Distribution) -> Tensor:
    return distributions.kl_divergence(p, q).sum()
