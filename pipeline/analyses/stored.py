"""What Dask finds out about feature stores of any size: columns, drift, spectrum; out of core.

Features are those of the kernel, K = ΦΦᵀ: column weights are put in. Memory is bounded by the size
of the chunks and the number of threads that read them; see :func:`out_of_core`.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pipeline.artefact import differences
from pipeline.store import FeatureStore
from pipeline.store.lazy import lazy_chunks
from pipeline.types import InputError, MissingExtraError

MODEL = "model"
"""Part of a store's provenance in which two revisions may differ."""

COPIES = 24
"""Memory of a thread in chunks: at most five are in use, the rest is what the C library keeps
(13 to 16 measured with chunks of 8 MiB)."""

GRAPH_BYTES = 5 * 2**10
"""What Dask holds for every chunk of a store (measured with 43,000 of them)."""

OVERSAMPLES = 10
"""Columns of the random projection beyond the rank."""

DEFAULT_MEMORY = 2 * 2**30

SCHEDULER_SECONDS = 20
"""Wait for a Dask scheduler to answer, and for its first worker."""


@dataclass(frozen=True)
class ColumnStats:
    """What the columns of a store hold."""

    norms: Float[np.ndarray, " p"]
    """Euclidean norm of the finite entries of every column of Φ, float64."""
    nonfinite: Int[np.ndarray, " p"]
    """Entries of every column that are NaN or infinite."""


@dataclass(frozen=True)
class Drift:
    """How far the features of the same rows moved between two revisions of a model."""

    relative: float
    """‖Φ_after − Φ_before‖ / ‖Φ_before‖, Frobenius norms."""
    cosine: float
    """Mean over rows of the cosine between a row before and after; rows of zeros left out."""


def drift(before: FeatureStore, after: FeatureStore) -> Drift:
    """Distance of two stores that differ in the model alone; one pass over both."""
    refuse_other_rows(before, after)
    dask, da = _dask()
    w = after.column_weights()
    a = _weighted(before, w)
    b = _weighted(after, w).rechunk(a.chunks)  # the same already, unless rows per shard were chosen
    columns = (1,) * len(a.chunks[1])
    sums = da.map_blocks(
        _row_sums, a, b, chunks=(a.chunks[0], columns, (4,)), new_axis=2, dtype=np.float64
    )
    (total,) = dask.compute(sums.sum(axis=1))
    aa, bb, ab, difference = total.T
    if not aa.sum() > 0:
        raise InputError(f"{before.path} holds zeros alone: no drift can be measured from it.")
    there = (aa > 0) & (bb > 0)
    cosine = (ab[there] / np.sqrt(aa[there] * bb[there])).mean() if there.any() else 0.0
    return Drift(float(np.sqrt(difference.sum() / aa.sum())), float(cosine))


def refuse_other_rows(before: FeatureStore, after: FeatureStore) -> None:
    """Raise :class:`InputError` unless rows and columns of both stores mean the same."""
    wanted, found = after.facts.provenance, before.facts.provenance
    parts = [key for key, _, _ in differences(found, wanted) if key.split(".")[0] != MODEL]
    if parts or before.shape != after.shape:
        raise InputError(
            f"{before.path} and {after.path} differ in more than the model's weights: "
            f"{', '.join(parts) or f'{before.shape} and {after.shape}'}. Drift compares two "
            "revisions of one model on the same samples through the same sketch."
        )


def column_stats(store: FeatureStore) -> ColumnStats:
    """Norm and non-finite entries of every column; one pass."""
    dask, _ = _dask()
    features = _weighted(store, store.column_weights())
    rows = (1,) * len(features.chunks[0])
    sums = features.map_blocks(
        _column_sums, chunks=(rows, features.chunks[1], (2,)), new_axis=2, dtype=np.float64
    )
    (total,) = dask.compute(sums.sum(axis=0))
    return ColumnStats(np.sqrt(total[:, 0]), total[:, 1].astype(np.int64))


def spectrum(
    store: FeatureStore, rank: int, *, seed: int = 0, passes: int = 2
) -> Float[np.ndarray, " rank"]:
    """Largest eigenvalues of K = ΦΦᵀ, descending, by Dask's randomized SVD of Φ.

    ``passes`` power iterations, each reading Φ twice, sharpen what decays slowly (Halko, Martinsson
    and Tropp 2011, algorithm 4.4). Holds :func:`spectrum_vectors` columns of length p.
    """
    dask, da = _dask()
    n, p = store.shape
    if not 1 <= rank <= min(n, p):
        raise InputError(f"a rank from 1 to {min(n, p)} is expected, got {rank}.", "--rank")
    state = da.random.RandomState(seed, RandomState=np.random.RandomState)
    _, values, _ = da.linalg.svd_compressed(
        _weighted(store, store.column_weights()),
        rank,
        # Orthonormal between the passes: plain powers of float32 products lose all but the largest.
        iterator="QR",
        n_power_iter=passes,
        n_oversamples=min(OVERSAMPLES, min(n, p) - rank),
        seed=state,
        # Each pass reads the store anew; one graph of all passes would hold it as a whole.
        compute=True,
    )
    (values,) = dask.compute(values)
    squares: np.ndarray = np.asarray(values, dtype=np.float64) ** 2
    return squares


def spectrum_vectors(rank: int) -> int:
    """Columns of length p, float32, that :func:`spectrum` holds: the basis, and the next one."""
    return 2 * (rank + OVERSAMPLES)


@contextmanager
def out_of_core(
    stores: Sequence[FeatureStore],
    memory: int = DEFAULT_MEMORY,
    address: str | None = None,
    *,
    vectors: int = 0,
) -> Iterator[None]:
    """Inside, Dask computes on as many threads as fit ``memory`` bytes, or on a cluster.

    The memory is what the work takes beside Python and its libraries, ``vectors`` columns of length
    p held throughout included. ``address`` is a scheduler of ``distributed``, whose workers have
    limits of their own.
    """
    dask, _ = _dask()
    if address is not None:
        with _scheduler(address):
            yield
        return
    layouts = [store.facts.layout for store in stores]
    a_thread = COPIES * max(4 * math.prod(lazy_chunks(layout)) for layout in layouts)
    held = max(_graph_bytes(store) for store in stores) + 4 * vectors * stores[0].shape[1]
    if memory < held + a_thread:
        raise InputError(
            f"{memory / 2**20:.0f} MiB do not hold one thread's chunks; "
            f"{math.ceil((held + a_thread) / 2**20)} MiB do.",
            "--memory",
        )
    threads = min(os.cpu_count() or 1, (memory - held) // a_thread)
    with dask.config.set(scheduler="threads", num_workers=threads):
        yield


def _scheduler(address: str) -> AbstractContextManager[Any]:
    """The client of a running scheduler that has workers."""
    try:
        from dask.distributed import Client
    except ImportError:
        raise MissingExtraError("distributed", "cluster", "a Dask scheduler") from None
    try:
        client = Client(address, timeout=f"{SCHEDULER_SECONDS}s")
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address!r} ({error}). Start one with `dask scheduler`, "
            "or leave the address out to use this machine's threads.",
            "--address",
        ) from None
    try:
        client.wait_for_workers(1, timeout=SCHEDULER_SECONDS)
    except TimeoutError:
        client.close()
        raise InputError(
            f"the Dask scheduler at {address} has no worker. Start some, where this package is "
            f"installed and the stores are seen, with `dask worker {address}`.",
            "--address",
        ) from None
    return client


def _graph_bytes(store: FeatureStore) -> int:
    rows, columns = lazy_chunks(store.facts.layout)
    n, p = store.shape
    return GRAPH_BYTES * math.ceil(n / rows) * math.ceil(p / columns)


def _column_sums(block: Float[np.ndarray, "n w"]) -> Float[np.ndarray, "1 w 2"]:
    """Sums of squares and counts of non-finite entries of a block's columns."""
    finite = np.isfinite(block)
    # Squares of float32 gradients can be too small for float32; einsum casts piece by piece.
    kept = np.where(finite, block, np.float32(0))
    squares = np.einsum("ij,ij->j", kept, kept, dtype=np.float64)
    return np.stack([squares, (~finite).sum(axis=0)], axis=1)[None]


def _row_sums(
    before: Float[np.ndarray, "n w"], after: Float[np.ndarray, "n w"]
) -> Float[np.ndarray, "n 1 4"]:
    """‖a‖², ‖b‖², a·b and ‖b − a‖² of each row of two blocks."""
    moved = after - before
    pairs = ((before, before), (after, after), (before, after), (moved, moved))
    sums = [np.einsum("ij,ij->i", x, y, dtype=np.float64) for x, y in pairs]
    return np.stack(sums, axis=1)[:, None]


def _weighted(store: FeatureStore, weights: Float[np.ndarray, " p"]) -> Any:
    """Φ times its column weights, lazy float32 (n, p)."""
    return store.as_dask() * weights.astype(np.float32)


def _dask() -> tuple[Any, Any]:
    try:
        import dask
        import dask.array
    except ImportError:
        raise MissingExtraError("dask", "cluster", "statistics of stored features") from None
    return dask, dask.array
