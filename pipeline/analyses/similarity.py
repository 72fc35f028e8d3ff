"""How alike two networks, checkpoints or tasks are, seen through their gradients.

Three quantities that are often confused (METHODS), with rows Φ of gradients:

| name | of | needs |
|---|---|---|
| parameter cosine (001, section 4) | ⟨F_A, F_B⟩ / (‖F_A‖ ‖F_B‖), F = ΦᵀΦ | the same parameters |
| kernel alignment | ⟨K_A, K_B⟩ / (‖K_A‖ ‖K_B‖), K = ΦΦᵀ | the same samples |
| Task2Vec cosine (Achille et al. 2019) | diag F_A and diag F_B | the same parameters |

The first two are cosines of positive semi-definite matrices, and their inner products are traces of
products with them: the largest directions of both are found by random projections and counted
exactly, the rest is estimated from random probes (Hutch++, Meyer et al. 2021, "Hutch++: optimal
stochastic trace estimation"). Neither F nor K is formed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.analyses.streamed import StreamedFeatures
from pipeline.gram import gram
from pipeline.gram.weighting import weightings_of
from pipeline.types import InputError

Product = Callable[[Float[Tensor, "s m"]], Float[Tensor, "s m"]]
"""V ↦ M V of a positive semi-definite M."""

TOLERANCE = 3e-3
"""Relative standard error to which cosines are estimated."""
FIRST_RANK, GROWTH = 4, 4
"""Directions of each matrix that are counted exactly at first, and how they grow; random vectors
for the rest are twice as many."""


@dataclass(frozen=True)
class Cosine:
    """A cosine between 0 and 1 of two positive semi-definite matrices."""

    value: float
    stderr: float
    """Over the random vectors; 0 where nothing was estimated."""


def parameter_cosine(
    A: StreamedFeatures,
    B: StreamedFeatures,
    *,
    tol: float = TOLERANCE,
    seed: int = 0,
) -> Cosine:
    """sim(A, B) of the papers, by sketch: two networks of one architecture, or two tasks."""
    _refuse_other_columns(A, B)
    return sketched_cosine(A.fisher_times, B.fisher_times, A.shape[1], tol=tol, seed=seed)


def kernel_alignment(
    A: StreamedFeatures,
    B: StreamedFeatures,
    *,
    center: bool = False,
    tol: float = TOLERANCE,
    seed: int = 0,
) -> Cosine:
    """Alignment of two kernels over the same samples, by sketch; with ``center`` it is CKA."""
    _refuse_other_rows(A, B)
    of_A, of_B = (centered(X.kernel_times) if center else X.kernel_times for X in (A, B))
    return sketched_cosine(of_A, of_B, A.shape[0], tol=tol, seed=seed)


def sketched_cosine(
    A: Product, B: Product, size: int, *, tol: float = TOLERANCE, seed: int = 0
) -> Cosine:
    """The cosine of two positive semi-definite matrices known by their products.

    More directions are taken until the relative standard error is at most ``tol``.
    """
    rank = FIRST_RANK
    found = cosine_at_rank(A, B, size, rank=rank, seed=seed)
    while found.stderr > tol * abs(found.value) and 2 * rank < size:
        rank = min(GROWTH * rank, size)
        found = cosine_at_rank(A, B, size, rank=rank, seed=seed)
    return found


def cosine_at_rank(A: Product, B: Product, size: int, *, rank: int, seed: int = 0) -> Cosine:
    """The same with a number of directions of each matrix counted exactly."""
    probes = 2 * rank
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(size, min(rank, size), generator=generator, dtype=torch.float64)
    Q = torch.linalg.qr(torch.cat([A(start), B(start)], dim=1)).Q
    rest = torch.randn(size, probes, generator=generator, dtype=torch.float64)
    rest -= Q @ (Q.T @ rest)
    block, d = torch.cat([Q, rest], dim=1), Q.shape[1]
    of_A, of_B = A(block), B(block)
    # One row a pair of matrices: what Q holds, then each probe's estimate of what is left.
    pairs = [(of_A, of_B), (of_A, of_A), (of_B, of_B)]
    parts = torch.stack([(left * right).sum(dim=0) for left, right in pairs])
    held, left = parts[:, :d].sum(dim=1), parts[:, d:]
    inner, own_A, own_B = held + left.mean(dim=1)
    value = float(inner / (own_A * own_B).sqrt())
    # First order: the estimates share their probes, so that their errors partly cancel.
    slopes = torch.stack([1 / inner, -0.5 / own_A, -0.5 / own_B])
    return Cosine(value, abs(value) * float((slopes @ left).std()) / probes**0.5)


def exact_parameter_cosine(A: StreamedFeatures, B: StreamedFeatures) -> Cosine:
    """The same from the three kernels, formed: ‖Φ_A Φ_Bᵀ‖² / (‖K_A‖ ‖K_B‖)."""
    _refuse_other_columns(A, B)
    squares = [_norm(gram(x, y)) for x, y in _pairs(A, B)]
    return Cosine(squares[0] ** 2 / (squares[1] * squares[2]), 0.0)


def exact_kernel_alignment(A: StreamedFeatures, B: StreamedFeatures) -> Cosine:
    """The same from both kernels, formed."""
    _refuse_other_rows(A, B)
    K_A, K_B = gram(A.source), gram(B.source)
    inner = float(np.einsum("ij,ij->", K_A, K_B, dtype=np.float64))
    return Cosine(inner / (_norm(K_A) * _norm(K_B)), 0.0)


def diagonal_fisher(features: StreamedFeatures) -> Float[Tensor, " p"]:
    """diag ΦᵀΦ / n: the task's embedding of Task2Vec, for scalar outputs of unit noise."""
    return features.column_squares() / features.shape[0]


def task2vec_cosine(F_a: Float[Tensor, " p"], F_b: Float[Tensor, " p"]) -> float:
    """Cosine of F_a/(F_a + F_b) and F_b/(F_a + F_b), entry by entry; entries zero in both drop."""
    if F_a.shape != F_b.shape:
        raise InputError(
            f"diagonal Fisher matrices of {len(F_a)} and {len(F_b)} parameters cannot be compared: "
            "use one architecture and one sketch."
        )
    total = F_a + F_b
    used = total > 0
    a, b = F_a[used] / total[used], F_b[used] / total[used]
    return float(a @ b / (a.norm() * b.norm()))


def label_alignment(
    features: StreamedFeatures, Y: Float[Tensor, "n k"], *, tol: float = TOLERANCE, seed: int = 0
) -> Cosine:
    """Alignment of K with the targets' own kernel YYᵀ; centre Y first."""
    if len(Y) != features.shape[0]:
        raise InputError(f"{features.shape[0]} rows of features have {len(Y)} targets.")
    targets = Y.double()
    return sketched_cosine(
        features.kernel_times, lambda V: targets @ (targets.T @ V), len(Y), tol=tol, seed=seed
    )


def similarity_matrix(
    items: Sequence[StreamedFeatures], cosine: Callable[[StreamedFeatures, StreamedFeatures], float]
) -> Float[np.ndarray, "a a"]:
    """A symmetric cosine of every pair; ones on the diagonal."""
    matrix = np.eye(len(items))
    for i, left in enumerate(items):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = cosine(left, items[j])
    return matrix


def centered(product: Product) -> Product:
    """The product with HMH, H = I − 11ᵀ/n."""

    def of(V: Tensor) -> Tensor:
        moved = product(V - V.mean(dim=0))
        return moved - moved.mean(dim=0)

    return of


def _pairs(A: StreamedFeatures, B: StreamedFeatures) -> list[tuple[object, object]]:
    return [(A.source, B.source), (A.source, None), (B.source, None)]


def _norm(K: np.ndarray) -> float:
    return float(np.sqrt(np.einsum("ij,ij->", K, K, dtype=np.float64)))


def _refuse_other_columns(A: StreamedFeatures, B: StreamedFeatures) -> None:
    if A.shape[1] != B.shape[1]:
        raise InputError(
            f"the features have {A.shape[1]} and {B.shape[1]} columns: a cosine in parameter space "
            "compares equal parameters. Use kernel alignment between architectures."
        )
    weightings_of([A.source, B.source])


def _refuse_other_rows(A: StreamedFeatures, B: StreamedFeatures) -> None:
    if A.shape[0] != B.shape[0]:
        raise InputError(
            f"the features have {A.shape[0]} and {B.shape[0]} rows: kernels are aligned over the "
            "same samples."
        )
