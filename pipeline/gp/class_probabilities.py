"""From Gaussian logits to class probabilities.

| rule | probabilities |
|---|---|
| ``map`` | softmax of the mean |
| ``probit`` | softmax(m / √(1 + πv/8)), v the logits' variances (MacKay 1992) |
| ``monte_carlo`` | mean softmax over draws of the logits |
"""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.types import InputError

Rule = Literal["map", "probit", "monte_carlo"]

DRAWS = 1_000
"""Draws of a Monte-Carlo prediction: a standard error of at most 0.016."""


def class_probabilities(
    mean: Float[Tensor, "m k"],
    covariance: Float[Tensor, "m k k"],
    rule: Rule = "monte_carlo",
    *,
    generator: torch.Generator | None = None,
    draws: int = DRAWS,
) -> Float[Tensor, "m k"]:
    """Probabilities of the k classes; draws need a generator."""
    if rule not in get_args(Rule):
        raise InputError(f"rule must be one of {', '.join(get_args(Rule))}; got {rule!r}.")
    if rule == "map":
        return mean.softmax(1)
    if rule == "probit":
        variances = covariance.diagonal(dim1=1, dim2=2).clamp(min=0)
        return (mean / (1 + math.pi / 8 * variances).sqrt()).softmax(1)
    if generator is None:
        raise InputError("Monte-Carlo probabilities need a torch.Generator.")
    if draws < 1:
        raise InputError(f"Monte-Carlo probabilities need at least one draw, got {draws}.")
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt()[:, None, :]
    noise = torch.randn((draws, *mean.shape), generator=generator, dtype=mean.dtype)
    logits = mean + torch.einsum("mij,smj->smi", root, noise.to(mean.device))
    return logits.softmax(2).mean(0)


def sample_blocks(covariance: Float[Tensor, "m*k m*k"], k: int) -> Float[Tensor, "m k k"]:
    """The k×k blocks of each sample by itself."""
    m = len(covariance) // k
    everything = covariance.reshape(m, k, m, k)
    return torch.stack([everything[i, :, i] for i in range(m)])
