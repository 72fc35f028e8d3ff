"""What is fixed when a store is created, and how many rows a shard gets."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.artefact import canonical_json
from pipeline.store.precision import NUMPY_DTYPES, StoredDtype
from pipeline.store.shard import Compression, ShardLayout

FORMAT_VERSION = 1
SHARD_TARGET_BYTES = 64 * 2**20
LARGEST_SHARD_SAMPLES = 256


@dataclass(frozen=True)
class StoreFacts:
    """The contents of ``store.json``."""

    n: int
    """Samples."""
    p: int
    """Columns: kept parameters."""
    outputs: int
    """Rows per sample: 1, or k for the full eNTK, row ``i·outputs + j`` being output j of i."""
    dtype: StoredDtype
    scale: float
    """Stored value = gradient × scale, a power of two."""
    rows_per_shard: int
    """Samples per shard."""
    h: int
    """Width of the penultimate activations; 0 where they are not stored."""
    k: int
    """Width of f₀."""
    compression: Compression
    provenance: dict[str, Any]
    """What determines the features; compared on opening."""
    recorded: dict[str, Any]
    """What does not, but is repeated on resume: batch size, threads, device."""
    version: int = FORMAT_VERSION

    @property
    def layout(self) -> ShardLayout:
        """Shape, type and codecs of a shard."""
        rows = self.rows_per_shard * self.outputs
        return ShardLayout(rows, self.p, NUMPY_DTYPES[self.dtype], self.compression)


def rows_per_shard(p: int, dtype: str, n: int, outputs: int = 1) -> int:
    """Samples per shard: the largest power of two, up to 256, that keeps it within 64 MiB.

    A shard is also the block of work that one worker does, and that a lost worker costs.
    """
    one_sample = ShardLayout(rows=outputs, columns=p, dtype=NUMPY_DTYPES[dtype])
    fitting = max(1, SHARD_TARGET_BYTES // one_sample.nbytes)
    return max(1, min(n, LARGEST_SHARD_SAMPLES, 2 ** (fitting.bit_length() - 1)))


def as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping as JSON gives it back (tuples are lists), so that comparison is exact."""
    plain: dict[str, Any] = json.loads(canonical_json(value))
    return plain
