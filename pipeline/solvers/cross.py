"""Other rows' kernel with the training rows, as the solvers see it: products only."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.group import Alone, Group
from pipeline.solvers.operator import Array, KernelOperator, TileSource, as_tensor, product


@runtime_checkable
class CrossKernel(Protocol):
    """A kernel (m, n) of other rows with the training rows."""

    m: int

    def matvec(self, V: Float[Tensor, "h k"]) -> Float[Tensor, "m k"]:
        """Its product with V, whose training rows are shared as the kernel's; on every worker."""
        ...


class DenseCross:
    """A cross-kernel's columns of the training rows held here, in memory or in a file."""

    def __init__(self, K: Float[Tensor, "m h"] | TileSource, group: Group | None = None) -> None:
        self.K = K
        self.m = K.shape[0]
        self._group = group or Alone()

    def matvec(self, V: Float[Tensor, "h k"]) -> Float[Tensor, "m k"]:
        """K V in float64, over all workers' columns."""
        return self._group.sum(product(self.K, V).to(V.device))


class ProbeRows:
    """WᵀK as a cross-kernel, from W and an operator: random combinations of K's own rows."""

    def __init__(self, operator: KernelOperator, W: Float[Tensor, "h d"]) -> None:
        self._operator = operator
        self._rows = operator.matvec(W)
        self.m = W.shape[1]

    def matvec(self, V: Float[Tensor, "h k"]) -> Float[Tensor, "d k"]:
        """WᵀK V in float64."""
        return self._operator.inner(self._rows, V)


def as_cross(K: Array | CrossKernel) -> CrossKernel:
    """The cross-kernel itself, or an array (m, n) made into one."""
    return DenseCross(as_tensor(K)) if isinstance(K, Array) else K
