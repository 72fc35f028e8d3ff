"""K on a subspace, in eigen-coordinates: every ridge and stopping time is then a vector product.

From a full eigendecomposition the subspace is everything and all is exact; from a block Krylov
basis the eigenvalues are Ritz values and what is computed converges as the basis grows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.cross import CrossKernel, as_cross
from pipeline.solvers.krylov import KrylovBasis
from pipeline.solvers.operator import Array

CHUNK_COLUMNS = 2048
"""Columns of one product of filtered predictions: wide enough for GEMM speed."""


@dataclass(frozen=True)
class Eigensystem:
    """Ritz pairs and the targets in their coordinates; Ritz vectors are ``basis @ rotation``."""

    eigenvalues: Float[Tensor, " s"]
    """Ascending."""
    basis: Float[Tensor, "n s"]
    rotation: Float[Tensor, "s s"] | None
    """None where the basis holds the eigenvectors themselves."""
    coordinates: Float[Tensor, "s k"]
    """UᵀY."""
    exact: bool
    """Whether the subspace is invariant: no error but rounding."""

    def dual_weights(self, filters: Float[Tensor, "s j"]) -> Float[Tensor, "n k"]:
        """α = U g(Λ) UᵀY; ``filters`` holds one column, or one per target."""
        return self.basis @ self._rotated(filters * self.coordinates)

    def project(self, K_cross: Array | CrossKernel) -> Float[Tensor, "m s"]:
        """K_cross U: predictions are this times filtered coordinates."""
        return CrossRows(K_cross).on(self)

    def _rotated(self, coordinates: Tensor) -> Tensor:
        return coordinates if self.rotation is None else self.rotation @ coordinates


class CrossRows:
    """A cross-kernel on the bases of one growing series: each basis vector is multiplied once."""

    def __init__(self, K_cross: Array | CrossKernel) -> None:
        self._cross = as_cross(K_cross)
        self.m = self._cross.m
        self._known: Tensor | None = None
        """Products with the first basis vectors, on the basis' device."""

    def on(
        self, system: Eigensystem, combinations: Float[Tensor, "d m"] | None = None
    ) -> Float[Tensor, "m s"] | Float[Tensor, "d s"]:
        """K_cross U, or sums of its rows, for a system whose basis continues the last one's."""
        basis = system.basis
        if self._known is None:
            self._known = basis.new_empty((self.m, 0))
        fresh = basis[:, self._known.shape[1] :]
        if fresh.shape[1]:
            self._known = torch.cat([self._known, self._cross.matvec(fresh)], dim=1)
        rows = self._known if combinations is None else combinations.to(basis) @ self._known
        return rows if system.rotation is None else rows @ system.rotation


def ritz_system(krylov: KrylovBasis) -> Eigensystem:
    """The Rayleigh–Ritz pairs of the basis so far, with the targets it was started from."""
    eigenvalues, rotation = torch.linalg.eigh(krylov.projected)
    start = krylov.coefficients
    return Eigensystem(
        eigenvalues=eigenvalues,
        basis=krylov.vectors,
        rotation=rotation,
        coordinates=rotation[: start.shape[0]].T @ start,
        exact=krylov.exhausted,
    )


def filtered_chunks(
    projected: Float[Tensor, "m s"],
    filters: Float[Tensor, "q s"],
    coordinates: Float[Tensor, "s k"],
) -> Iterator[Float[Tensor, "c m k"]]:
    """Predictions of q filters in order, some at a time: products of (m, s) with (s, c k).

    In the dtype of ``projected``. The chunks depend on q and the targets alone, so two systems'
    chunks pair up.
    """
    filters, coordinates = filters.to(projected), coordinates.to(projected)
    k = coordinates.shape[1]
    size = max(1, CHUNK_COLUMNS // k)
    for start in range(0, filters.shape[0], size):
        chunk = filters[start : start + size]
        weights = chunk.T[:, :, None] * coordinates[:, None, :]
        predictions = projected @ weights.reshape(-1, len(chunk) * k)
        yield predictions.reshape(-1, len(chunk), k).transpose(0, 1)
