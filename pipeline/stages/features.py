"""The feature stage: for every split a store in the cache, keyed by what determines it."""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from pipeline.artefact import digest, write_json
from pipeline.data.batches import input_bytes, largest_batch, preprocess_provenance
from pipeline.data.split import Split
from pipeline.distributed.choose import make_executor
from pipeline.distributed.decoders import Decoders
from pipeline.distributed.executor import Attempts, BlockFailedError, DecodingExecutor, tried
from pipeline.distributed.worker import computing_threads
from pipeline.jacobian import FeatureExtractor, Features
from pipeline.planner import Plan
from pipeline.stages.featurize import extract_batches, make_extractor
from pipeline.stages.featurize_spec import STAGE, FeaturizeSpec, SplitJob
from pipeline.stages.job import Instrument, Job
from pipeline.stages.loading import Loading, make_loader
from pipeline.stages.shards import POLL_SECONDS, ShardWatch, complete_shards
from pipeline.store import FeatureStore, power_of_two_scale
from pipeline.store.facts import FORMAT_VERSION
from pipeline.store.features import STORE, StoreExistsError
from pipeline.store.lease import take_lease
from pipeline.store.place import Location, absolute, child, place_at

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

SCALE_ROWS = 64
"""The store's scale comes from the first 64 rows."""


def featurize(job: Job, instrument: Instrument, plan: Plan) -> dict[str, Location]:
    """The finished feature store of every split; only missing shards are computed."""
    started = time.perf_counter()
    keys = {name: provenance(job, instrument, job.split(name)) for name in job.featurized}
    paths = {name: store_path(job, keys[name]) for name in job.featurized}
    write_json(
        job.folder.features,
        {
            name: {
                **job.folder.entry_of(paths[name]),
                "key": digest(keys[name]),
                "provenance": keys[name],
            }
            for name in job.featurized
        },
    )
    owner = uuid4().hex
    stores = _opened(job, instrument, plan, keys, paths, owner)
    missing = _missing(stores)
    facts = _compute(job, instrument, plan, stores, missing, owner)
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


def store_path(job: Job, key: Mapping[str, Any]) -> Location:
    """Where the features of this provenance lie in the cache."""
    return child(job.config.store.root, f"features-{digest(key)[:16]}")


def make_spec(
    job: Job, instrument: Instrument, device: str, jobs: Any, owner: str
) -> FeaturizeSpec:
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
        owner=owner,
        decode_timeout=job.config.executor.decode_timeout,
    )


def _opened(
    job: Job,
    instrument: Instrument,
    plan: Plan,
    keys: Mapping[str, Mapping[str, Any]],
    paths: Mapping[str, Location],
    owner: str,
) -> dict[str, FeatureStore]:
    """Every split's store, those that are absent made; of several runs one makes a store."""
    jobs = {
        n: SplitJob(job.split(n), absolute(path), 0, plan.batch_size) for n, path in paths.items()
    }
    spec = make_spec(job, instrument, plan.device, jobs.values(), owner)
    extractor = functools.cache(lambda: make_extractor(spec))
    stores = {}
    for name, path in paths.items():
        place = place_at(path)
        while place.size(STORE) is None:
            lease = take_lease(place, "create", owner)
            if lease is None:
                logger.info("features of %s: another run is creating them, waiting", name)
                time.sleep(POLL_SECONDS)
                continue
            with lease, contextlib.suppress(StoreExistsError), computing_threads(plan.threads):
                _create(job, instrument, plan, keys[name], jobs[name], extractor(), spec)
        stores[name] = FeatureStore.open(path, keys[name])
    return stores


def _create(
    job: Job,
    instrument: Instrument,
    plan: Plan,
    key: Mapping[str, Any],
    split_job: SplitJob,
    extract: FeatureExtractor,
    spec: FeaturizeSpec,
) -> None:
    """An empty store whose scale comes from the split's first rows."""
    scale, h, k = _retried(partial(_first_rows, extract, spec, split_job), job, spec, split_job)
    FeatureStore.create(
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


def _first_rows(
    extract: FeatureExtractor, spec: FeaturizeSpec, split_job: SplitJob
) -> tuple[float, int, int]:
    """Scale, width of the penultimate activations and of f₀."""
    first = slice(0, min(SCALE_ROWS, len(split_job.split)))
    scale, h, k = 1.0, 0, 1
    for features, _ in extract_batches(extract, Loading(first, spec, split_job)):
        found = power_of_two_scale(features.phi)
        scale = found if h == 0 else min(scale, found)
        k, h = features.f0.shape[1], _width(features)
    return scale, h, k


def _retried(
    look: Callable[[], Result], job: Job, spec: FeaturizeSpec, split_job: SplitJob
) -> Result:
    """What the first rows give, tried, counted and given up as their shard would be."""
    watch = ShardWatch(job, replace(spec, jobs=(split_job,)), 1)
    attempts = Attempts(job.config.executor.max_retries_per_block, watch.on_retry)
    while True:
        try:
            found = tried(look, 0, attempts)
        except BlockFailedError as failed:
            raise watch.failed(failed) from None
        if found is not None:
            return found


def _width(features: Features) -> int:
    return 0 if features.captured is None else features.captured.shape[1]


def _missing(stores: Mapping[str, FeatureStore]) -> dict[str, list[int]]:
    """The shards that nobody has finished yet, by split."""
    missing = {name: store.missing_rows() for name, store in stores.items()}
    for name, store in stores.items():
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
    owner: str,
) -> dict[str, Any]:
    """Have the workers make the missing shards; figures for ``timing.json``."""
    if not any(missing.values()):
        return {}
    jobs, first = {}, 0
    for name, store in stores.items():
        recorded = store.facts.recorded
        jobs[name] = SplitJob(job.split(name), absolute(store.path), first, recorded["batch_size"])
        first += store.shards
    recorded = next(stores[name].facts.recorded for name in stores if missing[name])
    if job.config.features.batch_size not in ("auto", recorded["batch_size"]):
        logger.warning(
            "features.batch_size: the features were begun with %d, which stays",
            recorded["batch_size"],
        )
    spec = make_spec(job, instrument, recorded["device"], jobs.values(), owner)
    rows = sum(store.facts.n for store in stores.values())
    to_do = sum(_rows(stores[name], missing[name]) for name in stores)
    job.progress.start(STAGE, rows, rows - to_do, "samples")
    shards = sum(map(len, missing.values()))
    watch = ShardWatch(job, spec, shards)
    job.folder.record_event("stage_started", stage=STAGE, rows=to_do, shards=shards)
    with make_executor(
        job.config.executor,
        workers=plan.workers,
        threads=recorded["threads"],
        gpus_per_worker=plan.gpus_per_worker,
        log_folder=job.folder.path.absolute() / "logs",
    ) as executor:
        if job.config.executor.decoders and isinstance(executor, DecodingExecutor):
            spec = replace(spec, decoders=_decoders(job, executor, spec))
        outcome = complete_shards(executor, spec, stores, missing, watch)
    job.progress.finish(STAGE)
    rate = watch.rows / max(outcome.work_seconds, 1e-9)
    logger.info("features: %d samples, %.1f samples/s", watch.rows, rate)
    facts = {
        "rows": watch.rows,
        "rows_per_second": round(rate, 2),
        "startup_seconds": round(outcome.startup_seconds, 3),
        "busy_seconds": round(outcome.busy_seconds, 3),
        "work_seconds": round(outcome.work_seconds, 3),
        "waited_seconds": round(watch.waited_seconds, 3),
        "shards_computed": watch.shards,
        "shards_reused": sum(store.shards for store in stores.values()) - watch.shards,
        "retries": outcome.retries,
        "workers_lost": outcome.workers_lost,
        "bytes": watch.rows * instrument.sketch.size * stores["train"].dtype.itemsize,
    }
    job.folder.record_event("stage_done", stage=STAGE, **facts)
    return facts


def _decoders(job: Job, executor: DecodingExecutor, spec: FeaturizeSpec) -> Decoders:
    """Actors that load for the workers, as many as were asked for."""
    sample = input_bytes(largest_batch(job.split("train"), spec.preprocess, 1))
    return executor.start_decoders(
        make_loader,
        spec,
        count=job.config.executor.decoders,
        ahead=job.config.executor.ahead,
        load_bytes=sample * max(split_job.batch_size for split_job in spec.jobs),
    )


def _rows(store: FeatureStore, shards: list[int]) -> int:
    return sum(store.samples(shard).stop - store.samples(shard).start for shard in shards)
