"""The feature stage: for every split a store in the cache, keyed by what determines it."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import filelock

from pipeline.artefact import digest, write_json
from pipeline.data.batches import preprocess_provenance
from pipeline.data.split import Split
from pipeline.distributed.choose import make_executor
from pipeline.distributed.worker import computing_threads
from pipeline.jacobian import Features
from pipeline.log import BlockDone
from pipeline.planner import Plan
from pipeline.stages.featurize import (
    STAGE,
    FeaturizeSpec,
    SplitJob,
    extract_batches,
    make_extractor,
    make_featurizer,
)
from pipeline.stages.job import Instrument, Job
from pipeline.store import FeatureStore, power_of_two_scale
from pipeline.store.facts import FORMAT_VERSION

logger = logging.getLogger(__name__)

SCALE_ROWS = 64
"""The store's scale comes from the first 64 rows."""


def featurize(job: Job, instrument: Instrument, plan: Plan) -> dict[str, Path]:
    """The finished feature store of every split; only missing shards are computed."""
    started = time.perf_counter()
    keys = {name: provenance(job, instrument, job.split(name)) for name in job.featurized}
    paths = {name: store_path(job, keys[name]) for name in job.featurized}
    write_json(
        job.folder.features,
        {
            name: {"store": str(paths[name]), "key": digest(keys[name]), "provenance": keys[name]}
            for name in job.featurized
        },
    )
    with ExitStack() as locks:
        # In the order of their paths: two runs that share stores cannot wait for each other.
        for path, name in sorted((path, name) for name, path in paths.items()):
            locks.enter_context(_owned(path, name))
        stores = _opened(job, instrument, plan, keys, paths)
        missing = _missing(stores)
        facts = _compute(job, instrument, plan, stores, missing)
    if any(missing.values()):
        job.folder.record_timing(STAGE, {**facts, "seconds": time.perf_counter() - started})
    return paths


def provenance(job: Job, instrument: Instrument, split: Split) -> Mapping[str, Any]:
    """What the features of a split depend on, and nothing else: their key in the cache."""
    config = job.config
    return {
        "format": FORMAT_VERSION,
        "model": instrument.network.provenance(),
        "output": config.features.output,
        "compute_dtype": config.features.compute_dtype,
        "dtype": config.features.dtype,
        "sketch": instrument.sketch.provenance(),
        "preprocess": preprocess_provenance(config.benchmark.preprocess),
        "samples": split.digest(),
    }


def store_path(job: Job, key: Mapping[str, Any]) -> Path:
    """Where the features of this provenance lie in the cache."""
    return job.config.store.root / f"features-{digest(key)[:16]}"


def make_spec(job: Job, instrument: Instrument, device: str, jobs: Any) -> FeaturizeSpec:
    """What the workers are told."""
    return FeaturizeSpec(
        model=instrument.model_options,
        state_digest=instrument.state_digest,
        sketch=job.config.sketch,
        preprocess=job.config.benchmark.preprocess,
        output=job.config.features.output,
        compute_dtype=job.config.features.compute_dtype,
        device=device,
        jobs=tuple(jobs),
    )


@contextlib.contextmanager
def _owned(path: Path, name: str) -> Iterator[None]:
    """This process's right to write a store; a second run waits here for the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        logger.info("features of %s: another run is making them, waiting", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _opened(
    job: Job,
    instrument: Instrument,
    plan: Plan,
    keys: Mapping[str, Mapping[str, Any]],
    paths: Mapping[str, Path],
) -> dict[str, FeatureStore]:
    stores = {
        name: FeatureStore.open(path, keys[name])
        for name, path in paths.items()
        if (path / "store.json").is_file()
    }
    absent = [name for name in paths if name not in stores]
    if absent:
        jobs = [SplitJob(job.split(n), paths[n], 0, plan.batch_size) for n in absent]
        spec = make_spec(job, instrument, plan.device, jobs)
        with computing_threads(plan.threads):
            extract = make_extractor(spec)
            for name, split_job in zip(absent, jobs, strict=True):
                stores[name] = _created(job, instrument, plan, keys[name], split_job, extract, spec)
    return {name: stores[name] for name in paths}


def _created(
    job: Job,
    instrument: Instrument,
    plan: Plan,
    key: Mapping[str, Any],
    split_job: SplitJob,
    extract: Any,
    spec: FeaturizeSpec,
) -> FeatureStore:
    """An empty store whose scale comes from the split's first rows."""
    first = split_job.split.subset(slice(0, SCALE_ROWS))
    scale, h, k = 1.0, 0, 1
    for features in extract_batches(extract, first, spec.preprocess, split_job):
        found = power_of_two_scale(features.phi)
        scale = found if h == 0 else min(scale, found)
        k, h = features.f0.shape[1], _width(features)
    return FeatureStore.create(
        split_job.store,
        n=len(split_job.split),
        p=instrument.sketch.size,
        provenance=key,
        dtype=job.config.features.dtype,
        scale=scale,
        h=h,
        k=k,
        column_weights=instrument.sketch.column_weights,
        compression=job.config.store.compression,
        recorded={"batch_size": plan.batch_size, "threads": plan.threads, "device": plan.device},
    )


def _width(features: Features) -> int:
    return 0 if features.captured is None else features.captured.shape[1]


def _missing(stores: Mapping[str, FeatureStore]) -> dict[str, list[int]]:
    """The shards that nobody has finished yet, by split."""
    missing = {name: store.missing_rows() for name, store in stores.items()}
    for name, store in stores.items():
        if missing[name]:
            store.remove_stale()
        logger.debug(
            "features of %s: %d shards missing in %s", name, len(missing[name]), store.path
        )
    to_do = sum(len(shards) for shards in missing.values())
    done = sum(store.shards for store in stores.values()) - to_do
    logger.info("features: %d shards reused, %d to compute", done, to_do)
    return missing


def _compute(
    job: Job,
    instrument: Instrument,
    plan: Plan,
    stores: Mapping[str, FeatureStore],
    missing: Mapping[str, list[int]],
) -> dict[str, Any]:
    """Have the workers make the missing shards; figures for ``timing.json``."""
    if not any(missing.values()):
        return {}
    jobs, first = {}, 0
    for name, store in stores.items():
        recorded = store.facts.recorded
        jobs[name] = SplitJob(job.split(name), store.path, first, recorded["batch_size"])
        first += store.shards
    blocks = [jobs[name].first_block + shard for name in stores for shard in missing[name]]
    recorded = next(stores[name].facts.recorded for name in stores if missing[name])
    spec = make_spec(job, instrument, recorded["device"], jobs.values())
    rows = sum(store.facts.n for store in stores.values())
    to_do = sum(_rows(stores[name], missing[name]) for name in stores)
    job.progress.start(STAGE, rows, rows - to_do, "samples")

    def on_done(event: BlockDone) -> None:
        split_job, shard = spec.locate(event.block)
        job.folder.record_event(
            "shard_done",
            stage=STAGE,
            split=split_job.split.name,
            shard=shard,
            seconds=round(event.seconds, 3),
            peak_bytes=event.peak_bytes,
        )
        job.progress.advance(event)

    job.folder.record_event("stage_started", stage=STAGE, rows=to_do, shards=len(blocks))
    with make_executor(
        job.config.executor,
        workers=plan.workers,
        threads=recorded["threads"],
        gpus_per_worker=plan.gpus_per_worker,
        log_folder=job.folder.path.absolute() / "logs",
    ) as executor:
        outcome = executor.run(make_featurizer, spec, blocks, on_done)
    job.progress.finish(STAGE)
    rate = to_do / max(outcome.work_seconds, 1e-9)
    logger.info("features: %d samples, %.1f samples/s", to_do, rate)
    facts = {
        "rows": to_do,
        "rows_per_second": round(rate, 2),
        "startup_seconds": round(outcome.startup_seconds, 3),
        "shards_computed": len(blocks),
        "shards_reused": sum(s.shards for s in stores.values()) - len(blocks),
        "retries": outcome.retries,
        "workers_lost": outcome.workers_lost,
        "bytes": to_do * instrument.sketch.size * stores["train"].dtype.itemsize,
    }
    job.folder.record_event("stage_done", stage=STAGE, **facts)
    return facts


def _rows(store: FeatureStore, shards: list[int]) -> int:
    return sum(store.samples(shard).stop - store.samples(shard).start for shard in shards)
