"""Gaussian-process formulas by dense algebra, written as the textbook has them."""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal


def posterior(J: Tensor, J_test: Tensor, r: Tensor, s: float, noise: Tensor | float):
    """Mean (m, c) and covariance (m, m) of f given r, by one dense solve."""
    A = s * J @ J.T + torch.as_tensor(noise, dtype=J.dtype) * torch.eye(len(J), dtype=J.dtype)
    cross = s * J_test @ J.T
    mean = cross @ torch.linalg.solve(A, r)
    return mean, s * J_test @ J_test.T - cross @ torch.linalg.solve(A, cross.T)


def log_evidence(J: Tensor, r: Tensor, s: float, noise: Tensor | float) -> Tensor:
    """log N(r | 0, sJJᵀ + σ²I) summed over the columns."""
    A = s * J @ J.T + torch.as_tensor(noise, dtype=J.dtype) * torch.eye(len(J), dtype=J.dtype)
    return MultivariateNormal(torch.zeros(len(J), dtype=J.dtype), A).log_prob(r.T).sum()
