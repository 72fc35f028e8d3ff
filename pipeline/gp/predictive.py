"""A Gaussian over function values at some samples."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.types import InputError


@dataclass(frozen=True)
class Predictive:
    """f at m samples: means, variances and, where asked for, the covariance between samples.

    Variances are of f itself; ``noise`` is added to them for new observations y.
    """

    mean: Float[Tensor, "m k"]
    variance: Float[Tensor, "m k"]
    """Of f, in squared units of the targets."""
    noise: float
    """Variance σ² of y given f."""
    covariance: Float[Tensor, "m*q m*q"] | None = None
    """Of f, sample by sample, output by output: q = k where the outputs share θ′, and 1 where the
    targets are independent with one kernel."""

    def observed_variance(self) -> Float[Tensor, "m k"]:
        """Variance of y = f + ε."""
        return self.variance + self.noise

    def log_density(self, targets: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        """log N(y | mean, variance + noise) of every target by itself, in nats."""
        targets = torch.as_tensor(targets).to(self.mean)
        if targets.shape == self.mean.shape[:1] and self.mean.shape[1] == 1:
            targets = targets[:, None]
        if targets.shape != self.mean.shape:
            raise InputError(
                f"expected targets {tuple(self.mean.shape)}, got {tuple(targets.shape)}."
            )
        variance = self.observed_variance()
        squares = (targets - self.mean).square() / variance
        return -0.5 * (squares + variance.log() + math.log(2 * math.pi))

    def interval(self, level: float = 0.95) -> tuple[Float[Tensor, "m k"], Float[Tensor, "m k"]]:
        """Ends of the central interval of y with this probability."""
        if not 0 < level < 1:
            raise InputError(f"an interval's probability lies between 0 and 1, got {level}.")
        width = math.sqrt(2) * torch.erfinv(torch.tensor(level, dtype=torch.float64))
        reach = width.to(self.mean) * self.observed_variance().sqrt()
        return self.mean - reach, self.mean + reach

    def samples(self, count: int, generator: torch.Generator) -> Float[Tensor, "s m k"]:
        """Draws of f, jointly over the samples."""
        if self.covariance is None:
            raise InputError("samples need the covariance: predict with covariance=True.")
        m, k = self.mean.shape
        size = len(self.covariance)
        # By eigenvectors: a posterior covariance is often singular, and rounding may dip below 0.
        values, vectors = torch.linalg.eigh(self.covariance)
        root = vectors * values.clamp(min=0).sqrt()
        draws = torch.randn((count, size, m * k // size), generator=generator, dtype=root.dtype).to(
            root.device
        )
        return self.mean + (root @ draws).reshape(count, m, k)
