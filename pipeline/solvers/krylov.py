"""Orthonormal bases from products with K: the ground that Lanczos and the spectrum stand on.

A block Krylov basis V spans Y, KY, K²Y, …; T = VᵀKV is kept beside it. Reorthogonalization is
full (every new block against all before it, twice), in float64: without it Ritz values repeat,
and Nesterov's replay on T is wrong from a few hundred iterations on.

Only ``matvec`` and ``inner`` are used, so orthonormalization goes through Gram matrices. One pass
resolves directions down to 1e-6 of the largest; smaller ones are found by repeating on the rest.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.operator import KernelOperator, column_norms

RESOLUTION = 1e-12
"""Smallest eigenvalue of a normalized Gram matrix taken as a direction, not as rounding."""

ROUNDING = 1e-14
"""Rounding of a projected column, relative to what it was before."""

NEGLIGIBLE = 1e-13
"""Columns below this share of their scale are rounding."""


class KrylovBasis:
    """V with orthonormal columns, grown block by block, and T = VᵀKV.

    ``exhausted`` says that K maps the span into itself: everything computed on T is then exact.
    """

    def __init__(self, operator: KernelOperator, start: Float[Tensor, "n k"]) -> None:
        self.operator = operator
        self._held = start.shape[0]
        first = orthonormal(operator, start, column_norms(operator, start))
        # Rows of the store are basis vectors: appending never moves them.
        self._rows = first.new_empty((0, self._held))
        self._projected = first.new_empty((0, 0))
        self.size = 0
        self._pending = first
        self._coupling = first.new_zeros((0, 0))
        self._scale = first.new_zeros(())
        self._append(first)
        self.exhausted = first.shape[1] == 0
        self.coefficients = operator.inner(first, start)
        """R with start = V₁R."""
        self.products_size = 0
        """Columns of V whose product with K is known: T is complete up to here."""
        self.steps = 0
        """Products with K so far."""

    @property
    def vectors(self) -> Float[Tensor, "n s"]:
        """V up to the columns whose products are known."""
        return self._rows[: self.products_size].T

    @property
    def projected(self) -> Float[Tensor, "s s"]:
        """T = VᵀKV, symmetric."""
        s = self.products_size
        return self._projected[:s, :s]

    @property
    def next_block(self) -> Float[Tensor, "n b"]:
        """The columns of V that K has not been applied to yet."""
        return self._pending

    def grow_to(self, steps: int) -> None:
        """Products with K until there are ``steps``, or the span is K's own; one at least."""
        while not self.exhausted and self.steps < max(steps, 1):
            self.grow()

    def grow(self) -> None:
        """One product with K: T grows by the pending block, and the next block is made."""
        if self.exhausted:
            return
        self.steps += 1
        V, start = self._rows[: self.size].T, self.products_size
        W = self.operator.matvec(self._pending)
        H = self.operator.inner(V, W)
        self._projected[: self.size, start : self.size] = H
        self._projected[start : self.size, : self.size] = H.T
        corner = self._projected[start : self.size, start : self.size]
        corner.copy_((corner + corner.T) / 2)
        self.products_size = self.size
        # Measured by the largest product so far: where K maps the block to zero, all is rounding.
        self._scale = torch.maximum(self._scale, column_norms(self.operator, W).max())
        W = W - V @ H
        block = orthonormal(self.operator, W, self._scale.expand(W.shape[1]))
        block = block[:, : self.operator.n - self.size]
        block -= V @ self.operator.inner(V, block)
        self._pending = orthonormal(self.operator, block, torch.ones(block.shape[1]))
        self._coupling = self.operator.inner(self._pending, W)
        self._append(self._pending)
        self.exhausted = self._pending.shape[1] == 0

    def residual_norms(self, vectors: Float[Tensor, "s j"]) -> Float[Tensor, " j"]:
        """‖K V z − V T z‖ for coordinate columns z: how far each is from an eigenvector."""
        return (self._coupling @ vectors[vectors.shape[0] - self._coupling.shape[1] :]).norm(dim=0)

    def _append(self, block: Float[Tensor, "n b"]) -> None:
        size = self.size + block.shape[1]
        if size > self._rows.shape[0]:
            capacity = max(size, min(2 * self._rows.shape[0], self.operator.n))
            rows = self._rows.new_empty((capacity, self._held))
            rows[: self.size] = self._rows[: self.size]
            projected = self._projected.new_zeros((capacity, capacity))
            projected[: self.size, : self.size] = self._projected[: self.size, : self.size]
            self._rows, self._projected = rows, projected
        self._rows[self.size : size] = block.T
        self.size = size


def orthonormal(
    operator: KernelOperator, W: Float[Tensor, "n b"], scale: Float[Tensor, " b"]
) -> Float[Tensor, "n r"]:
    """Orthonormal columns spanning W without what is rounding beside ``scale``.

    ``scale`` measures each column: what is smaller than 1e-13 of it counts as zero.
    """
    found = W[:, :0]
    floor = NEGLIGIBLE * scale.to(W.device)
    for _ in range(W.shape[1]):
        norms = column_norms(operator, W)
        kept = norms > floor
        if not bool(kept.any()):
            break
        # Cancellation left rounding in the columns, larger the smaller they have become.
        noise = ROUNDING * float((scale.to(W.device)[kept] / norms[kept]).max())
        new = _whitened(operator, W[:, kept] / norms[kept], max(RESOLUTION, noise**2))
        complete = new.shape[1] == W.shape[1]
        # Once more: a small eigenvalue of the Gram matrix costs its direction half the digits.
        new = _whitened(operator, new - found @ operator.inner(found, new), RESOLUTION)
        found = torch.cat([found, new], dim=1)
        if complete:
            break
        W = W - found @ operator.inner(found, W)
    return found


def _whitened(
    operator: KernelOperator, W: Float[Tensor, "n b"], resolution: float
) -> Float[Tensor, "n r"]:
    """W's directions clear of rounding, orthonormal to within rounding over their smallness."""
    values, directions = torch.linalg.eigh(operator.inner(W, W))
    clear = values > resolution * values[-1]
    whitened: Tensor = (W @ directions[:, clear]) / values[clear].sqrt()
    return whitened
