"""What is fixed when a store is created, and how many rows a shard gets."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from pipeline.artefact import (
    CorruptArtefactError,
    canonical_json,
    digest,
    parsed_json,
    readable_json,
)
from pipeline.store.precision import NUMPY_DTYPES, StoredDtype
from pipeline.store.shard import Compression, ShardLayout
from pipeline.types import InputError

FORMAT_VERSION = 1
DIGEST = "digest"
"""The key in ``store.json`` of the digest of all others."""
SHARD_TARGET_BYTES = 64 * 2**20
LARGEST_SHARD_SAMPLES = 256


@with_config(ConfigDict(strict=True, extra="forbid"))
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
    weights_sha256: str | None = None
    """Digest of ``column_weights.npy``; None in stores of earlier versions."""
    version: int = FORMAT_VERSION

    @property
    def layout(self) -> ShardLayout:
        """Shape, type and codecs of a shard."""
        rows = self.rows_per_shard * self.outputs
        return ShardLayout(rows, self.p, NUMPY_DTYPES[self.dtype], self.compression)


FACTS = TypeAdapter(StoreFacts)


def facts_bytes(facts: StoreFacts) -> bytes:
    """``store.json``, with a digest of its own: a changed scale would change results silently."""
    values = asdict(facts)
    return readable_json({**values, DIGEST: digest(values)}).encode()


def parsed_facts(content: bytes, path: str) -> StoreFacts:
    """The facts in the ``store.json`` at ``path``; what is damaged or of no store is refused."""
    values = parsed_json(content, path)
    if not isinstance(values, dict):
        raise _no_store(path, "an object was expected")
    version = values.get("version")
    if isinstance(version, int) and version != FORMAT_VERSION:
        raise InputError(
            f"{path} has feature format {version}, this version reads {FORMAT_VERSION}. Delete its "
            "folder to make the features again."
        )
    written = values.pop(DIGEST, None)  # absent in stores of earlier versions
    if written not in (None, digest(values)):
        raise CorruptArtefactError(
            f"{path} is damaged: it is not what was written. Delete its folder to make the "
            "features again."
        )
    try:
        # From JSON: in Python's values, strict would ask for an instance of the class.
        return FACTS.validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _no_store(path, ": ".join([*map(str, first["loc"]), first["msg"]])) from None


def _no_store(path: str, why: str) -> InputError:
    return InputError(
        f"{path} is not of a feature store: it does not hold what one's does ({why}). Expected a "
        "folder that the features stage made; a run's features.json names them."
    )


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
