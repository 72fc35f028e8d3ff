"""What a Gram pass needs in memory, for the planner."""

from pipeline.gram.panels import PANEL_COLUMNS
from pipeline.types import InputError

FLOAT32_BYTES = 4
ALLOWANCE = 1.1
"""Kernel, panels and ten percent: reading, tiles and the libraries' own buffers."""

CHUNK_ROWS = 1024
"""Rows of other features that a worker's own are multiplied with at a time: full GEMM speed."""


def gram_bytes(n: int, m: int = 0, *, p: int, panel_columns: int = PANEL_COLUMNS) -> int:
    """Peak bytes of :func:`gram_blocks` for ``n`` training rows and ``m`` others in all.

    K, the cross-kernels and two float32 panels of all rows (of 16-bit features: two that are read
    into and one that is multiplied), and 10 %.
    """
    kernels = n * (n + m)
    panels = 2 * (n + m) * min(panel_columns, p)
    return int(ALLOWANCE * FLOAT32_BYTES * (kernels + panels))


def shard_bytes(rows: int, n: int, m: int, *, p: int, panel_columns: int = PANEL_COLUMNS) -> int:
    """Peak bytes of :func:`shard_to_disk` for a worker's ``rows`` of n training rows and m others.

    The worker's share of the kernels, its own rows' panel and two panels of a chunk of rows.
    """
    width, chunk = min(panel_columns, p), min(CHUNK_ROWS, n + m)
    kernels = rows * (n + m)
    return int(ALLOWANCE * FLOAT32_BYTES * (kernels + (rows + 2 * chunk) * width))


def prefix_bytes(n: int, m: int = 0) -> int:
    """Further bytes while the kernels of one prefix are finished (:func:`gram_prefixes`)."""
    return FLOAT32_BYTES * n * (n + m)


def block_rows(n: int, m: int, memory: int, *, p: int, panel_columns: int = PANEL_COLUMNS) -> int:
    """Rows of K per block when K exceeds ``memory`` bytes (:func:`gram_to_disk`), a multiple of 64.

    A block of b rows needs b·n sums and two panels of n + b rows. Raises :class:`InputError` with
    the figure where not even 64 rows fit.
    """
    width = min(panel_columns, p)
    budget = memory / (ALLOWANCE * FLOAT32_BYTES)
    rows = int((budget - 2 * n * width) / (n + 2 * width)) // 64 * 64
    if rows < 64:
        needed = int(ALLOWANCE * FLOAT32_BYTES * (64 * n + 2 * (n + 64) * width))
        raise InputError(
            f"the kernel of {n:,} rows needs at least {needed:,} bytes of memory in panels of "
            f"{width:,} columns; {memory:,} are allowed.",
            "limits.memory",
        )
    return min(rows, max(n, m))
