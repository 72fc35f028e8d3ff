"""What the planner fixed: recorded in the run folder, shown by ``entk plan``, used by stages."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.planner.roads import Road, Strategy


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that was ``auto``, decided, with the figures behind it. Bytes are bytes."""

    executor: Literal["local", "ray"]
    device: Literal["cpu", "cuda"]
    workers: int
    threads: int
    """Of each worker."""
    gpus_per_worker: float
    batch_size: int
    rows_per_shard: int
    """Of the training split."""
    shards: int
    """Of all splits."""
    worker_bytes: int
    """Peak memory of a feature worker's process."""
    worker_limit: int
    """What it may use."""
    driver_bytes: int
    """Peak memory of a process of the kernel stage on the chosen road."""
    driver_limit: int
    """What it may use."""
    algebra_bytes: int
    """What of that limit kernels and solvers may use."""
    store_bytes: int
    """Features, activations and records on disk."""
    kernel_bytes: int
    """Kernels on disk on the chosen road."""
    disk_limit: int | None
    """What features and kernels may take; None where free space cannot be known."""
    feature_flops: float
    feature_read_bytes: int
    """Decoded images that flow into the network."""
    strategy: Strategy
    """How the systems are solved; the chosen one of ``roads``."""
    roads: tuple[Road, ...]
    seconds: Mapping[str, float]
    """Estimated seconds of each stage whose rates are known."""
    reasons: tuple[str, ...]
    """Why each automatic choice fell as it did, one sentence each."""

    @property
    def road(self) -> Road:
        """The road that was chosen."""
        return next(road for road in self.roads if road.strategy == self.strategy)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        values = asdict(self)
        return {**values, "seconds": dict(self.seconds), "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Plan":
        """The plan that :meth:`to_json` gave."""
        roads = tuple(Road(**road) for road in values["roads"])
        return cls(**{**values, "roads": roads, "reasons": tuple(values["reasons"])})
