"""What the plan needs to know of a job: counts only."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.store import rows_per_shard
from pipeline.store.precision import NUMPY_DTYPES, StoredDtype
from pipeline.store.shard import ShardLayout
from pipeline.types import InputError

SAMPLE_RECORD_BYTES = 128
"""Id, label and done mark of one sample, generously."""


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """Sizes of a job; ``splits`` maps each split that gets features to its samples."""

    splits: Mapping[str, int]
    p: int
    """Columns: kept parameters."""
    P: int
    """All parameters of the network."""
    targets: int
    """Right-hand sides of the regression: classes, or outputs of a regression."""
    k: int = 1
    """Width of f₀: outputs of the network."""
    h: int = 0
    """Width of the penultimate activations."""
    outputs: int = 1
    """Feature rows per sample: 1, or k for the full eNTK."""
    dtype: StoredDtype = "float16"
    flops_per_sample: float
    """Arithmetic of one sample's features, in FLOP."""
    bytes_per_sample: int
    """Working memory of one sample in a batch beside its feature row, in bytes."""
    input_bytes: int
    """One decoded and preprocessed sample, in bytes."""
    library_bytes: int = 0
    """What a worker holds of a library that only this backbone needs, in bytes."""
    selection: str = "val"
    """The split on which the choice is made."""
    refit: str | None = None
    """The split whose rows join the training rows for the final fit."""
    prefixes: int = 0
    """Further kernels of the first columns only (``kernel.sizes``)."""
    stored_bytes: int = 0
    """What of this job's features and kernel lies on disk already, in bytes."""

    def __post_init__(self) -> None:
        if self.splits.get("train", 0) < 1:
            raise InputError("the training split is empty: there is nothing to plan.", "benchmark")

    @property
    def samples(self) -> int:
        """Samples of all splits."""
        return sum(self.splits.values())

    @property
    def n(self) -> int:
        """Training rows of the kernel."""
        return self.splits["train"] * self.outputs

    @property
    def m(self) -> int:
        """All other rows."""
        return (self.samples - self.splits["train"]) * self.outputs

    @property
    def val(self) -> int:
        """Rows on which the choice is made."""
        return self.splits.get(self.selection, 0) * self.outputs

    @property
    def largest(self) -> int:
        """Rows of the largest split that is only predicted."""
        others = [samples for name, samples in self.splits.items() if name != "train"]
        return max(others, default=0) * self.outputs

    @property
    def fitted_rows(self) -> int:
        """Rows of the largest system that is solved."""
        return self.n + (self.splits.get(self.refit, 0) * self.outputs if self.refit else 0)

    @property
    def itemsize(self) -> int:
        """Bytes of one stored number."""
        return NUMPY_DTYPES[self.dtype].itemsize

    @property
    def row_bytes(self) -> int:
        """One sample's features as stored, in bytes."""
        layout = ShardLayout(rows=self.outputs, columns=self.p, dtype=NUMPY_DTYPES[self.dtype])
        return layout.nbytes

    @property
    def store_bytes(self) -> int:
        """Features, activations, f₀ and the samples' records of all splits, in bytes.

        A split's last shard takes as much as its others: Zarr stores whole chunks.
        """
        features = self.row_bytes * sum(
            shards * self._rows_per_shard(name) for name, shards in self._shards.items()
        )
        return features + self.samples * (4 * (self.h + self.k) + SAMPLE_RECORD_BYTES)

    @property
    def rows_per_shard(self) -> int:
        """Samples of one shard of the training split."""
        return self._rows_per_shard("train")

    @property
    def shards(self) -> int:
        """Shards of all splits: the blocks that workers share."""
        return sum(self._shards.values())

    @property
    def _shards(self) -> Mapping[str, int]:
        return {name: -(-n // self._rows_per_shard(name)) for name, n in self.splits.items() if n}

    def _rows_per_shard(self, split: str) -> int:
        return rows_per_shard(self.p, self.dtype, self.splits[split], self.outputs)
