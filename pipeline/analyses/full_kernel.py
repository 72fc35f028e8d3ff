"""The full eNTK of k outputs beside the pseudo-NTK that stands for it (paper 003).

Θ (n·k, m·k) holds a k × k block for every pair of samples; rows run sample by sample, output by
output. The pseudo-NTK Θ̂ (n, m) is the kernel of one scalar: a logit, Σ logits / √k, or a random
direction; Θ̂ ⊗ I_k stands for Θ. It costs a k-th of the gradients and 1/k² of the memory.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor
from pipeline.jacobian.outputs import Output
from pipeline.types import InputError, Inputs, batch_size, slice_inputs

BATCH = 32
"""Samples of one pass."""
ROOM = 3 << 29
"""Bytes of gradients held at once."""


def kernel_of(
    model: nn.Module,
    inputs: Inputs,
    other: Inputs | None = None,
    *,
    output: Output = "all",
    seed: int = 0,
    batch: int = BATCH,
    compute_dtype: str | None = None,
) -> Float[Tensor, "N M"]:
    """Θ for ``output="all"``, else Θ̂, over all parameters, float64; no sketch, nothing stored.

    Gradients are computed some samples at a time and multiplied in float64; no more than about
    twice ``ROOM`` bytes of them are held, and they are computed again where that is too little.
    """
    extract = FeatureExtractor(model, output=output, seed=seed, compute_dtype=compute_dtype)
    group = max(1, ROOM // _rows(extract, slice_inputs(inputs, slice(0, 1))).nbytes)
    batch = min(batch, group)
    if other is None:
        return _symmetric(extract, inputs, group, batch)
    rows = []
    for start in range(0, batch_size(inputs), group):
        left = _group(extract, inputs, start, group, batch)
        rows.append(torch.cat([left @ phi.T for _, phi in _batches(extract, other, 0, batch)], 1))
    return torch.cat(rows)


def _symmetric(
    extract: FeatureExtractor, inputs: Inputs, group: int, batch: int
) -> Float[Tensor, "N N"]:
    """Every pair of samples once: a group with itself, then with the samples behind it."""
    n, blocks = batch_size(inputs), list[tuple[int, int, Tensor]]()
    for start in range(0, n, group):
        left = _group(extract, inputs, start, group, batch)
        q = len(left) // (min(start + group, n) - start)
        own = left @ left.T
        blocks.append((start * q, start * q, (own + own.T) / 2))
        for behind, phi in _batches(extract, inputs, start + group, batch):
            blocks.append((start * q, behind * q, left @ phi.T))
    K = torch.empty(n * q, n * q, dtype=torch.float64)
    for row, column, block in blocks:
        down, right = block.shape
        K[row : row + down, column : column + right] = block
        K[column : column + right, row : row + down] = block.T
    return K


def _group(
    extract: FeatureExtractor, inputs: Inputs, start: int, size: int, batch: int
) -> Float[Tensor, "gq P"]:
    """Gradient rows of the samples from ``start`` on, as many as there is room for."""
    samples = slice_inputs(inputs, slice(start, start + size))
    return torch.cat([phi for _, phi in _batches(extract, samples, 0, batch)])


def _batches(
    extract: FeatureExtractor, inputs: Inputs, start: int, batch: int
) -> Iterator[tuple[int, Float[Tensor, "bq P"]]]:
    """Gradient rows batch by batch from a sample on, with each batch's first sample."""
    for first in range(start, batch_size(inputs), batch):
        yield first, _rows(extract, slice_inputs(inputs, slice(first, first + batch)))


def _rows(extract: FeatureExtractor, inputs: Inputs) -> Float[Tensor, "bq P"]:
    phi = extract(inputs).phi
    # Rounded gradients still make a positive semi-definite kernel; rounded products do not.
    return phi.reshape(-1, phi.shape[-1]).double()


@dataclass(frozen=True)
class Comparison:
    """How well Θ̂ ⊗ I stands for Θ."""

    relative_error: float
    """‖Θ − Θ̂ ⊗ I‖_F / ‖Θ‖_F"""
    norm_difference: float
    """|‖Θ‖_F − ‖Θ̂ ⊗ I‖_F| / ‖Θ‖_F"""
    lambda_max: tuple[float, float]
    """Of Θ and of Θ̂."""
    lambda_min: tuple[float, float]
    condition: tuple[float, float]


def compare_kernels(full: Float[Tensor, "N N"], pseudo: Float[Tensor, "n n"]) -> Comparison:
    """The comparison of one network's two kernels on the same samples."""
    k = outputs_per_row(full, pseudo)
    n = len(pseudo)
    difference = full.reshape(n, k, n, k) - torch.einsum(
        "nm,jl->njml", pseudo, torch.eye(k, dtype=pseudo.dtype)
    )
    norm, other = float(full.norm()), math.sqrt(k) * float(pseudo.norm())
    spectra = [torch.linalg.eigvalsh(K) for K in (full, pseudo)]
    top, bottom = ([float(values[i]) for values in spectra] for i in (-1, 0))
    pairs = zip(top, bottom, strict=True)
    condition = [high / low if low > 0 else math.inf for high, low in pairs]
    return Comparison(
        relative_error=float(difference.norm()) / norm,
        norm_difference=abs(norm - other) / norm,
        lambda_max=(top[0], top[1]),
        lambda_min=(bottom[0], bottom[1]),
        condition=(condition[0], condition[1]),
    )


def outputs_per_row(full: Float[Tensor, "N M"], pseudo: Float[Tensor, "n m"]) -> int:
    """k, from the shapes of both kernels; refused where they do not belong together, or k = 1."""
    k, rest = divmod(full.shape[0], pseudo.shape[0])
    if rest or full.shape[1] != k * pseudo.shape[1]:
        raise InputError(
            f"a full kernel {tuple(full.shape)} is not k times a pseudo-NTK {tuple(pseudo.shape)}."
        )
    if k == 1:
        raise InputError("the network has one output (k = 1): full and pseudo-NTK are the same.")
    return k


def drift(start: Float[Tensor, "N M"], now: Float[Tensor, "N M"]) -> float:
    """‖K_t − K_0‖ / ‖K_0‖."""
    return float((now - start).norm() / start.norm())


@dataclass(frozen=True)
class PowerLaw:
    """y = c · x^exponent, fitted by least squares in logarithms."""

    exponent: float
    stderr: float
    constant: float


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """The exponent with which y falls or grows; at least three points, all positive."""
    if len(x) < 3 or len(x) != len(y) or min(*x, *y) <= 0:
        raise InputError(f"an exponent needs three positive points or more, found {list(y)}.")
    fit = stats.linregress(np.log(x), np.log(y))
    return PowerLaw(float(fit.slope), float(fit.stderr), float(np.exp(fit.intercept)))


def hanson_wright_bound(backbone: Float[Tensor, "h h"], k: int, delta: float = 0.05) -> float:
    """The talk's bound on ‖Θ − Θ̂I‖_F/‖Θ‖_F for one pair of samples, with probability 1 − δ.

    (‖Θ^φ‖_F + 4√h) / tr Θ^φ · k log(2k²/δ), Θ^φ (h, h) the eNTK of the penultimate features
    between the two samples. It holds for a random head with independent entries, and says nothing
    (infinity) where tr Θ^φ is not positive.
    """
    h, trace = len(backbone), float(backbone.trace())
    if trace <= 0:
        return math.inf
    numerator = float(backbone.norm()) + 4 * math.sqrt(h)
    return numerator / trace * k * math.log(2 * k**2 / delta)
