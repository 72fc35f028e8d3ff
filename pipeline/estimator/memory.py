"""What a fit in memory takes, refused before it starts where there is too little."""

import psutil

from pipeline.types import InputError

MEMORY_SHARE = 0.8
"""Of the available memory that features, kernel and weights may take."""


def refuse_memory(n: int, p: int, k: int = 1) -> None:
    """Raise where float32 features and K, K's float64 factors and the weights would not fit."""
    needed = 4 * n * p + (4 + 2 * 8) * n * n + 8 * p * k
    allowed = int(MEMORY_SHARE * psutil.virtual_memory().available)
    if needed > allowed:
        raise InputError(
            f"{n:,} samples × {p:,} parameters need {needed / 2**30:.1f} GiB of memory, "
            f"{allowed / 2**30:.1f} GiB may be used. Lower sketch_size, or use `entk run`, which "
            "keeps features on disk."
        )
