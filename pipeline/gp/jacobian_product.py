"""J(x₁) J(x₂)ᵀ as a lazy matrix of GPyTorch's: products by forward and backward passes only."""

from typing import Any

import torch
from jaxtyping import Float
from linear_operator import LinearOperator
from torch import Tensor

from pipeline.gp.linearization import Linearization
from pipeline.gp.rows import pairwise
from pipeline.jacobian.operators import JacobianOperator


class JacobianProduct(LinearOperator):
    """(…, n·q, m·q) between flat inputs (…, n, d) and (…, m, d), never formed.

    A product costs one backward pass over x₂ and one forward pass over x₁, batch by batch. There is
    no derivative by the inputs. ``per_sample`` is q.
    """

    def __init__(
        self,
        x1: Tensor,
        x2: Tensor,
        *,
        linearization: Linearization,
        per_sample: int,
        input_shape: tuple[int, ...] | None,
        entries: torch.dtype,
    ) -> None:
        super().__init__(
            x1,
            x2,
            linearization=linearization,
            per_sample=per_sample,
            input_shape=input_shape,
            entries=entries,
        )
        self.x1, self.x2 = x1, x2
        self.linearization, self.per_sample = linearization, per_sample
        self.input_shape, self.entries = input_shape, entries
        self._operators: dict[int, list[JacobianOperator]] = {}

    @property
    def dtype(self) -> torch.dtype:
        """Type of the products."""
        # Not that of the inputs, which the base class would take.
        return self.entries

    def _size(self) -> torch.Size:
        batch = torch.broadcast_shapes(self.x1.shape[:-2], self.x2.shape[:-2])
        n, m = (x.shape[-2] * self.per_sample for x in (self.x1, self.x2))
        return torch.Size((*batch, n, m))

    def _transpose_nonbatch(self) -> "JacobianProduct":
        return self._between(self.x2, self.x1)

    def _matmul(self, rhs: Tensor) -> Tensor:
        columns = rhs[..., None] if rhs.ndim == 1 else rhs
        batch = torch.broadcast_shapes(self.batch_shape, columns.shape[:-2])
        flat = columns.expand(*batch, *columns.shape[-2:]).reshape(-1, *columns.shape[-2:])
        left, right = self._jacobians(1, batch), self._jacobians(2, batch)
        parts = [
            J1.matmul(J2.t_matmul(V.to(J2.dtype)))
            for J1, J2, V in zip(left, right, flat, strict=True)
        ]
        result = torch.stack(parts).to(self.entries).reshape(*batch, *parts[0].shape)
        return result[..., 0] if rhs.ndim == 1 else result

    def _jacobians(self, which: int, batch: torch.Size) -> list[JacobianOperator]:
        """J of every batch element; made once."""
        known = self._operators.get(which, [])
        if len(known) != batch.numel():
            x = self.x1 if which == 1 else self.x2
            flat = x.expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
            known = [self.linearization.operator(self._inputs(part)) for part in flat]
            self._operators[which] = known
        return known

    def _inputs(self, x: Float[Tensor, "n d"]) -> Tensor:
        return x if self.input_shape is None else x.reshape(len(x), *self.input_shape)

    def _diagonal(self) -> Tensor:
        """Products of J's rows at x₁ and at x₂, batch by batch."""
        x1, x2 = torch.broadcast_tensors(self.x1, self.x2)
        same, size = torch.equal(x1, x2), self.linearization.batch
        products = []
        for part1, part2 in zip(*(x.flatten(0, -2).split(size) for x in (x1, x2)), strict=True):
            left = self.linearization.rows(self._inputs(part1))
            right = left if same else self.linearization.rows(self._inputs(part2))
            products.append(pairwise(left, right))
        return torch.cat(products).to(self.entries).reshape(*x1.shape[:-2], -1)

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        """Whole samples stay products; anything else is read out by unit vectors."""
        rows = _samples(row_index, self.per_sample, self.x1.shape[-2])
        columns = _samples(col_index, self.per_sample, self.x2.shape[-2])
        everything = all(index == slice(None, None, None) for index in batch_indices)
        if rows is None or columns is None or not everything:
            return super()._getitem(row_index, col_index, *batch_indices)
        return self._between(self.x1[..., rows, :], self.x2[..., columns, :])

    def _bilinear_derivative(self, left_vecs: Tensor, right_vecs: Tensor) -> tuple[None, None]:
        return None, None

    def _between(self, x1: Tensor, x2: Tensor) -> "JacobianProduct":
        return JacobianProduct(
            x1,
            x2,
            linearization=self.linearization,
            per_sample=self.per_sample,
            input_shape=self.input_shape,
            entries=self.entries,
        )


def _samples(index: Any, per_sample: int, samples: int) -> slice | None:
    """The samples that a slice of rows covers, where it covers whole ones."""
    if not isinstance(index, slice) or index.step not in (None, 1):
        return None
    start, stop, _ = index.indices(samples * per_sample)
    if start % per_sample or stop % per_sample:
        return None
    return slice(start // per_sample, stop // per_sample)
