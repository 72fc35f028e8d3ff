"""What the workers of the feature stage are told: options and paths, no tensor."""

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.data.batches import AnyPreprocess
from pipeline.data.split import Split
from pipeline.distributed.decoders import Decoders
from pipeline.store.place import Location

STAGE = "features"


@dataclass(frozen=True)
class SplitJob:
    """One split's share of the blocks."""

    split: Split
    store: Location
    first_block: int
    """Number of this split's shard 0 among all blocks."""
    batch_size: int
    """Images per pass; fixed when the store was created, since it moves float32 rounding."""


@dataclass(frozen=True)
class FeaturizeSpec:
    """Everything a worker needs: options and paths, no tensor."""

    model: Any
    state_digest: str
    sketch: Any
    preprocess: AnyPreprocess
    output: int | Literal["sum", "random_direction"]
    compute_dtype: str
    device: str
    jobs: tuple[SplitJob, ...]
    owner: str
    """This job among those that may want the same shards."""
    decode_timeout: float
    """Seconds that a batch may take to load."""
    decoders: Decoders | None = None
    """Who loads for the workers; without them each does it in a thread of its own."""

    def locate(self, block: int) -> tuple[SplitJob, int]:
        """The split and the shard that a block number means."""
        job = max((j for j in self.jobs if j.first_block <= block), key=lambda job: job.first_block)
        return job, block - job.first_block
