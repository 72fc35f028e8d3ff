"""The missing shards, done by this job's workers and by whoever else wants the same features."""

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

from pipeline.distributed.executor import BlockFailedError, BlockRetry, Executor, Outcome
from pipeline.log import BlockDone
from pipeline.stages.featurize import make_featurizer
from pipeline.stages.featurize_spec import STAGE, FeaturizeSpec, SplitJob
from pipeline.stages.job import Job
from pipeline.store import FeatureStore
from pipeline.store.lease import live_leases
from pipeline.types import InputError

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often a job that waits for another looks whether it is done."""


OUT_OF_MEMORY = re.compile(
    r"MemoryError|out of memory|alloc|OOM|running low on memory", re.IGNORECASE
)
"""How Python, torch, CUDA and Ray say so; a killed process could be one, too."""


class ShardFailedError(InputError):
    """A shard that failed as often as it may; the others are safe, a new run resumes."""

    def __init__(self, shard: int, job: SplitJob, error: BlockFailedError) -> None:
        advice = out_of_memory_advice(job) if OUT_OF_MEMORY.search(error.cause) else ""
        super().__init__(
            f"shard {shard} of split {job.split.name} failed {error.attempts} times, the last time "
            f"with: {error.cause}\n{advice}Finished shards are kept; the same command continues "
            "once the cause is gone. Every worker's log is in the run's folder, under logs/."
        )


def out_of_memory_advice(job: SplitJob) -> str:
    """What helps when a worker's memory, or its GPU's, does not suffice."""
    return (
        "If memory ran out, what helps: fewer workers (executor.workers, or a larger "
        "executor.gpus_per_worker), a higher limits.memory on machines that have it, or a "
        f"features.batch_size below {job.batch_size}. {job.store} keeps its batch size: for "
        "another one delete it, or change store.root.\n"
    )


class ShardWatch:
    """Hears of every block: writes events, moves the progress bar, counts what this job did."""

    def __init__(self, job: Job, spec: FeaturizeSpec, shards_to_do: int) -> None:
        self._job, self._spec = job, spec
        self._to_do = shards_to_do
        self.rows = 0
        self.shards = 0
        self.waited_seconds = 0.0

    def on_done(self, event: BlockDone) -> None:
        """A shard is finished, or left to the job that is making it."""
        if event.rows == 0:
            return
        self.rows += event.rows
        self.shards += 1
        self.waited_seconds += event.waited
        self._record(
            "shard_done",
            event.block,
            rows=event.rows,
            seconds=round(event.seconds, 3),
            waited_seconds=round(event.waited, 3),
            batches_ready=round(event.ready, 2),
            shards_left=self._to_do - self.shards,
            peak_bytes=event.peak_bytes,
        )
        self._job.progress.advance(event)

    def on_retry(self, retry: BlockRetry) -> None:
        """A shard went wrong and will be tried again."""
        self._record("shard_retry", retry.block, attempt=retry.attempt, error=retry.cause)

    def failed(self, error: BlockFailedError) -> ShardFailedError:
        """A shard is given up; the error that ends the run."""
        self._record("shard_failed", error.block, attempts=error.attempts, error=error.cause)
        split_job, shard = self._spec.locate(error.block)
        return ShardFailedError(shard, split_job, error)

    def _record(self, event: str, block: int, **facts: Any) -> None:
        split_job, shard = self._spec.locate(block)
        self._job.folder.record_event(
            event, stage=STAGE, split=split_job.split.name, shard=shard, **facts
        )


def complete_shards(
    executor: Executor,
    spec: FeaturizeSpec,
    stores: Mapping[str, FeatureStore],
    missing: Mapping[str, list[int]],
    watch: ShardWatch,
) -> Outcome:
    """Run until every shard is marked, by whomever; what other jobs hold is waited for."""
    outcome = Outcome()
    while any(missing.values()):
        free = _free_blocks(spec, stores, missing)
        if free:
            try:
                done = executor.run(make_featurizer, spec, free, watch.on_done, watch.on_retry)
            except BlockFailedError as error:
                raise watch.failed(error) from None
            outcome = outcome.plus(done)
        else:
            logger.info("features: another run is making what is missing, waiting")
            time.sleep(POLL_SECONDS)
        missing = {name: store.missing_rows() for name, store in stores.items()}
    return outcome


def _free_blocks(
    spec: FeaturizeSpec, stores: Mapping[str, FeatureStore], missing: Mapping[str, list[int]]
) -> list[int]:
    """Missing shards that no other job holds, largest first: a long one must not come last."""
    sized = []
    for job in spec.jobs:
        store, shards = stores[job.split.name], missing[job.split.name]
        leases = live_leases(store.place) if shards else {}
        for shard in shards:
            holder = leases.get(f"{shard:05d}")
            if holder is None or holder.owner == spec.owner:
                samples = store.samples(shard)
                sized.append((samples.start - samples.stop, job.first_block + shard))
    return [block for _, block in sorted(sized)]
