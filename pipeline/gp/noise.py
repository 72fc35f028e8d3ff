"""Noise variances of rows, and kernels that need one."""

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gp.rows import kernel
from pipeline.solvers.refusal import KernelError
from pipeline.types import InputError


def noise_of(noise: float | Float[Tensor, " n"], rows: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
    """σ² of every row in float64; refused below zero or of another length."""
    variances = torch.as_tensor(noise, dtype=torch.float64, device=rows.device).expand(len(rows))
    if not bool((variances >= 0).all() and torch.isfinite(variances).all()):
        raise InputError(f"noise variances must be finite and at least 0, got {noise}.")
    return variances


def covariance_factor(A: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Lower Cholesky factor of K + σ²I; refused with the row where it breaks down."""
    factor, info = torch.linalg.cholesky_ex(A)
    if int(info):
        raise KernelError(
            f"the kernel and its noise are not positive definite at row {int(info) - 1}: to "
            "rounding, its features are a combination of the earlier rows' (a duplicate?). Give a "
            "larger noise variance, or remove the row."
        )
    return factor


def refuse_singular(rows: Float[Tensor, "n p"], noise: Float[Tensor, " n"]) -> None:
    """Without noise, refuse more rows than columns, and rows that occur twice, by number."""
    exact = (noise == 0).nonzero()[:, 0]
    if len(exact) == 0:
        return
    if len(exact) > rows.shape[1]:
        raise KernelError(
            f"{len(exact)} rows without noise in {rows.shape[1]} columns: the kernel is singular "
            "and no function passes through all of them. Give a noise variance above 0."
        )
    chosen = rows[exact]
    K = kernel(chosen, chosen)
    norms = K.diagonal()
    distances = norms[:, None] + norms - 2 * K
    same = distances <= 1e-12 * torch.maximum(norms[:, None], norms)
    pairs = torch.triu(same, diagonal=1).nonzero()
    if len(pairs):
        i, j = (int(exact[a]) for a in pairs[0])
        raise KernelError(
            f"rows {i} and {j} have the same features and no noise: the kernel is singular. Give "
            "a noise variance above 0, or remove one of them."
        )
