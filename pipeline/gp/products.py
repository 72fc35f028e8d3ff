"""JJᵀ and JᵀJ by their products, as the solvers take a kernel; and solves that say how they ended.

Vectors are float64; the network computes in its own type, whose rounding bounds the residual that
conjugate gradients can reach: about 1e-4 in float32, 1e-12 in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.jacobian.operators import JacobianOperator
from pipeline.solvers.cg import cg
from pipeline.solvers.operator import column_norms
from pipeline.types import InputError

Product = Callable[[Float[Tensor, "n m"]], Float[Tensor, "n m"]]

REFINEMENTS = 4
"""Times a solve with inexact products is repeated on what it left over."""


class ProductKernel:
    """A symmetric positive semi-definite matrix of n rows, known by a function V ↦ K V."""

    def __init__(self, product: Product, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self._product, self.dtype = product, dtype
        self.n, self.rows, self.device = n, slice(0, n), device
        self.error = float(torch.finfo(dtype).eps)
        self.products, self.sent = 0, 0

    def matvec(self, V: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """K V in float64."""
        self.products += V.shape[1]
        return self._product(V.to(self.dtype)).double()

    def inner(self, U: Float[Tensor, "n a"], V: Float[Tensor, "n b"]) -> Float[Tensor, "a b"]:
        """UᵀV in float64."""
        return U.T @ V

    def gather(self, V: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """V itself."""
        return V

    def diagonal(self) -> Float[Tensor, " n"]:
        """Refused: products do not tell it."""
        raise InputError("a kernel known by its products has no diagonal at hand.")


def function_kernel(J: JacobianOperator) -> ProductKernel:
    """JJᵀ, one row an output of a sample."""
    return ProductKernel(J.kernel_matmul, J.shape[0], J.dtype, J.device)


def parameter_kernel(J: JacobianOperator) -> ProductKernel:
    """JᵀJ, one row a parameter: the Fisher matrix of unit noise."""

    def product(V: Tensor) -> Tensor:
        return J.t_matmul(J.matmul(V))

    return ProductKernel(product, J.shape[1], J.dtype, J.device)


@dataclass(frozen=True)
class Solved:
    """X with (K + ridge·I) X = B, and how far from it."""

    x: Float[Tensor, "n c"]
    residual: float
    """max over columns of ‖(K + ridge·I)X − B‖ / ‖B‖, by exact products."""
    iterations: int
    converged: bool
    tolerance: float
    """The residual asked for."""


def solved(
    kernel: ProductKernel,
    B: Float[Tensor, "n c"],
    ridge: float,
    *,
    tol: float,
    max_iterations: int,
    inexact: ProductKernel | None = None,
    start: Float[Tensor, "n c"] | None = None,
) -> Solved:
    """Conjugate gradients, certified by a product with ``kernel`` itself.

    With ``inexact`` products (finite differences) the iterations run on these, and what they leave
    over is solved for again until the exact residual is within ``tol``.
    """
    norms = column_norms(kernel, B)
    norms = torch.where(norms > 0, norms, torch.ones_like(norms))
    x = torch.zeros_like(B) if start is None else start
    left = B if start is None else B - kernel.matvec(x) - ridge * x
    best, taken = Solved(x, float("inf"), 0, False, tol), 0
    for _ in range(1 if inexact is None else REFINEMENTS):
        rest = max_iterations - taken
        found = cg(inexact or kernel, left, ridge, tol=tol, max_iterations=rest)
        x, taken = x + found.dual_weights, taken + found.iterations
        left = B - kernel.matvec(x) - ridge * x
        residual = float((column_norms(kernel, left) / norms).max())
        if residual < best.residual:
            best = Solved(x, residual, taken, residual <= tol, tol)
        if best.converged or best.x is not x or taken >= max_iterations:
            break
    return replace(best, iterations=taken)
