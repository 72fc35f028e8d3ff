"""The categorical likelihood of k logits: gradient, curvature and its root, sample by sample.

With q = softmax(f): ∇ log p(y | f) = y − q, and W = diag(q) − qqᵀ = RRᵀ with R = diag(√q) − q√qᵀ.
W is singular (it kills constants), so nothing here divides by it.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.types import InputError


def one_hot(labels: Int[Tensor, " n"], classes: int) -> Float[Tensor, "n k"]:
    """Labels as rows of zeros and a one, float64; refused outside 0 … k − 1."""
    labels = torch.as_tensor(labels)
    if labels.is_floating_point() or labels.ndim != 1:
        raise InputError(
            f"labels must be integers (n,), got {labels.dtype} of shape {tuple(labels.shape)}."
        )
    outside = (labels < 0) | (labels >= classes)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise InputError(
            f"label {int(labels[row])} of sample {row} is outside 0 … {classes - 1}, the outputs "
            "of the network."
        )
    return torch.nn.functional.one_hot(labels.long(), classes).double()


def log_likelihood(f: Float[Tensor, "n k"], Y: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """Σ log p(y | f), in nats."""
    return (f.log_softmax(1) * Y).sum()


def curvature_times(f: Float[Tensor, "n k"], u: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """W u = q ∘ (u − ⟨q, u⟩)."""
    q = f.softmax(1)
    return q * (u - (q * u).sum(1, keepdim=True))


def curvature_root(f: Float[Tensor, "n k"]) -> Float[Tensor, "n k k"]:
    """R of every sample, W = RRᵀ."""
    q = f.softmax(1)
    root = q.sqrt()
    return torch.diag_embed(root) - q[:, :, None] * root[:, None, :]


def root_transposed_rows(
    R: Float[Tensor, "n k k"], rows: Float[Tensor, "n*k c"]
) -> Float[Tensor, "n*k c"]:
    """Rᵀ of each sample times its k rows."""
    n, k, _ = R.shape
    return torch.einsum("nij,nic->njc", R, rows.reshape(n, k, -1)).reshape(n * k, -1)
