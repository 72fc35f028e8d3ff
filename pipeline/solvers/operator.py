"""K as the solvers see it: a product and an inner product, whatever holds its rows.

Solvers touch K only through :class:`KernelOperator`: ``DenseKernel`` here, ``RowKernel`` of rows
over several workers or in a file, ``FeatureKernel`` of features. Sharing the rows among workers
changes ``matvec`` and ``inner``, and nothing else: solvers hold the same rows of every vector.

Products run in float64 whatever K's dtype: in float32 CG and Lanczos stall at residuals of 1e-4
to 2e-3. K is converted one row tile at a time into a buffer that stays in cache, which on CPU is
as fast as a float64 copy of K in memory. The tiles depend on K's shape alone, so that equal
inputs give equal bytes.
"""

import warnings
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.types import InputError

Array = Tensor | np.ndarray

TILE_BYTES_CPU = 8 * 2**20
"""Float64 bytes of one row tile on CPU: fits the shared cache, large enough for full GEMM speed."""

TILE_BYTES_CUDA = 512 * 2**20
"""Float64 bytes of one row tile on a GPU: few launches, small beside K."""


@runtime_checkable
class KernelOperator(Protocol):
    """A symmetric positive semi-definite K of ``n`` rows, of which this process holds ``rows``."""

    n: int
    rows: slice
    """The rows held here: all of them, or a worker's block."""
    device: torch.device
    error: float
    """Relative rounding error of K's entries: the machine epsilon of what K was computed in."""
    products: int
    """Products with one column so far."""

    def matvec(self, V: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """K V in float64, for the rows held here."""
        ...

    def inner(self, U: Float[Tensor, "n a"], V: Float[Tensor, "n b"]) -> Float[Tensor, "a b"]:
        """UᵀV over all rows, float64, on every worker."""
        ...

    def diagonal(self) -> Float[Tensor, " n"]:
        """The diagonal of K for the rows held here, float64."""
        ...


class SharedKernel(KernelOperator, Protocol):
    """A kernel whose rows may lie with several workers, for whoever collects their results."""

    sent: int
    """Bytes that this worker has sent to others for its products."""

    def gather(self, V: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """All rows of V, on every worker."""
        ...


class TileSource(Protocol):
    """A matrix that is read some rows at a time, from a file for example."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def tiles(self) -> Iterator[tuple[slice, Float[Tensor, "b n"]]]:
        """Row tiles in float64, in order; a tile is valid until the next one is asked for."""
        ...


class DenseKernel:
    """K in memory (or memory-mapped) on one device."""

    def __init__(self, K: Float[Array, "n n"]) -> None:
        self.K = as_tensor(K)
        self.n = self.K.shape[0]
        self.rows = slice(0, self.n)
        self.device = self.K.device
        # K in 16 bits is refused elsewhere; float32 is what the Gram stores.
        self.error = float(torch.finfo(self.K.dtype).eps)
        self.products = 0
        self.sent = 0

    def matvec(self, V: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """K V in float64."""
        self.products += V.shape[1]
        return product(self.K, V)

    def inner(self, U: Float[Tensor, "n a"], V: Float[Tensor, "n b"]) -> Float[Tensor, "a b"]:
        """UᵀV in float64."""
        return U.T @ V

    def diagonal(self) -> Float[Tensor, " n"]:
        """The diagonal of K, float64."""
        return self.K.diagonal().double()

    def gather(self, V: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """V itself."""
        return V


def as_operator(K: "Array | KernelOperator") -> KernelOperator:
    """The operator itself, or a dense K made into one."""
    if isinstance(K, Tensor | np.ndarray):
        return DenseKernel(K)
    return K


def as_tensor(array: Array) -> Tensor:
    """The array as a floating-point tensor, sharing its memory; integers become float64."""
    if isinstance(array, np.ndarray):
        with warnings.catch_warnings():
            # Solvers only read K: a memory-mapped, read-only one is fine.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            array = torch.from_numpy(np.ascontiguousarray(array))
    if not array.is_floating_point():
        array = array.double()
    if array.dtype in (torch.float16, torch.bfloat16):
        raise InputError(
            f"K is {array.dtype}: its rounding moves predictions by 10 to 30 %. "
            "Form it in float32 or float64."
        )
    return array


def as_columns(Y: Array, device: torch.device) -> Float[Tensor, "n k"]:
    """Targets as float64 columns on K's device; one target (n,) becomes (n, 1)."""
    columns = torch.as_tensor(np.array(Y)) if isinstance(Y, np.ndarray) else Y
    columns = columns.to(device=device, dtype=torch.float64)
    return columns[:, None] if columns.ndim == 1 else columns


def product(M: Float[Tensor, "m n"] | TileSource, V: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
    """M V in float64 by row tiles; M may be float32 and live on the CPU or be memory-mapped."""
    # With few columns BLAS is a third faster when V and the result lie column by column.
    columns = V.to(M.device).T.contiguous()
    out = torch.empty((V.shape[1], M.shape[0]), dtype=torch.float64, device=M.device)
    for rows, tile in float64_tiles(M):
        torch.mm(columns, tile.T, out=out[:, rows])
    return out.T


def float64_tiles(
    M: Float[Tensor, "m n"] | TileSource,
) -> Iterator[tuple[slice, Float[Tensor, "b n"]]]:
    """Row tiles of M in float64, in order; a tile is valid until the next one is asked for."""
    if not isinstance(M, Tensor):
        yield from M.tiles()
        return
    step = tile_rows(M.shape[1], M.device)
    buffer = None
    if M.dtype != torch.float64:
        buffer = torch.empty(
            (min(step, M.shape[0]), M.shape[1]), dtype=torch.float64, device=M.device
        )
    for start in range(0, M.shape[0], step):
        rows = slice(start, min(start + step, M.shape[0]))
        if buffer is None:
            yield rows, M[rows]
        else:
            tile = buffer[: rows.stop - start]
            tile.copy_(M[rows])
            yield rows, tile


def tile_rows(width: int, device: torch.device) -> int:
    """Rows of one float64 tile of this width; never so few that a product loses GEMM speed."""
    budget = TILE_BYTES_CUDA if device.type == "cuda" else TILE_BYTES_CPU
    return max(64, budget // (8 * max(width, 1)))


def column_norms(operator: KernelOperator, V: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    """Euclidean norms of the columns, over all workers' rows."""
    return operator.inner(V, V).diagonal().clamp(min=0).sqrt()


def random_block(operator: KernelOperator, columns: int, seed: int) -> Float[Tensor, "n k"]:
    """Random signs, float64: every worker draws the whole block and keeps its own rows."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (operator.n, columns), generator=generator)
    return (2.0 * signs.double() - 1.0)[operator.rows].to(operator.device)
