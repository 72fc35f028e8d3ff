"""The block function of the feature stage: one shard of one split, from samples to marked bytes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from pipeline.artefact import ForeignArtefactError
from pipeline.data.batches import AnyPreprocess, LoadBatch, batch_loader
from pipeline.data.split import Split
from pipeline.distributed.ahead import Ahead
from pipeline.distributed.worker import peak_resident_bytes
from pipeline.jacobian import FeatureExtractor, Features, NonFiniteSamplesError
from pipeline.log import BlockDone
from pipeline.registry import build_network
from pipeline.sketch.make import build_sketch
from pipeline.store import FeatureStore
from pipeline.store.lease import take_lease
from pipeline.store.place import Location
from pipeline.store.precision import NonFiniteFeatureError
from pipeline.types import InputError, Inputs

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

    def locate(self, block: int) -> tuple[SplitJob, int]:
        """The split and the shard that a block number means."""
        job = max((j for j in self.jobs if j.first_block <= block), key=lambda job: job.first_block)
        return job, block - job.first_block


def make_featurizer(spec: FeaturizeSpec) -> Callable[[int], BlockDone]:
    """Load the backbone once; the function returned makes one shard and marks it done.

    It reports no rows for a shard that another job has finished or is making.
    """
    extract = make_extractor(spec)
    stores = {job.store: FeatureStore.open(job.store) for job in spec.jobs}

    def featurize_block(block: int) -> BlockDone:
        started = time.perf_counter()
        job, shard = spec.locate(block)
        store = stores[job.store]
        lease = take_lease(store.place, f"{shard:05d}", spec.owner)
        rows = 0
        if lease is not None:
            with lease:
                if not store.is_done(shard):
                    store.remove_partial(shard)
                    rows = write_shard(extract, store, shard, spec, job)
        seconds = time.perf_counter() - started
        return BlockDone(STAGE, block, rows, seconds, peak_resident_bytes())

    return featurize_block


def write_shard(
    extract: FeatureExtractor, store: FeatureStore, shard: int, spec: FeaturizeSpec, job: SplitJob
) -> int:
    """Make one shard and mark it done; its samples."""
    rows = job.split.subset(store.samples(shard))
    features = concatenated(list(extract_batches(extract, rows, spec, job)))
    store.write_rows(
        shard,
        features.phi,
        f0=features.f0,
        labels=rows.labels,
        ids=rows.ids,
        penultimate=features.captured,
    )
    return len(rows)


def make_extractor(spec: FeaturizeSpec) -> FeatureExtractor:
    """The engine for this spec's network, checked to be the one that was planned."""
    network = build_network(spec.model)
    found = network.state_digest()
    if found != spec.state_digest:
        raise ForeignArtefactError(
            f"the weights changed while the run was going: planned {spec.state_digest[:12]}, "
            f"loaded {found[:12]}. Run the command again."
        )
    module = network.module.double() if spec.compute_dtype == "float64" else network.module
    return FeatureExtractor(
        module,
        build_sketch(spec.sketch, network.module),
        output=spec.output,
        capture=network.head,
        compute_dtype=spec.compute_dtype,
        device=spec.device,
    )


def extract_batches(
    extract: FeatureExtractor, rows: Split, spec: FeaturizeSpec, job: SplitJob
) -> Iterator[Features]:
    """Features batch by batch; the next batch is decoded while this one is differentiated."""
    batches = [
        slice(start, start + job.batch_size) for start in range(0, len(rows), job.batch_size)
    ]
    load_rows = batch_loader(spec.preprocess)

    def load(batch: slice) -> Inputs:
        return load_rows(rows, batch)

    decoded = iter(Ahead(load, batches, timeout=spec.decode_timeout))
    for batch in batches:
        try:
            inputs = next(decoded)
        except InputError:
            raise  # it names the sample itself
        except Exception as error:
            culprit = undecodable(load_rows, rows.subset(batch), spec.decode_timeout)
            raise DecodingError(f"{culprit} of split {rows.name}: {error}") from error
        yield _named(extract, inputs, rows.subset(batch))


class DecodingError(Exception):
    """A sample that cannot be loaded now; another attempt may."""


def undecodable(load_rows: LoadBatch, rows: Split, timeout: float) -> str:
    """The first of some samples that cannot be loaded alone, or all where each of them can."""
    singles = [slice(i, i + 1) for i in range(len(rows))]
    alone = iter(Ahead(lambda one: load_rows(rows, one), singles, timeout=timeout))
    for name in rows.ids:
        try:
            next(alone)
        except Exception:
            return f"sample {name}"
    return f"one of the samples {rows.ids[0]} … {rows.ids[-1]}"


def _named(extract: FeatureExtractor, inputs: Inputs, rows: Split) -> Features:
    """Features of one batch; what the engine refuses is told with the samples' names."""
    try:
        return extract(inputs)
    except NonFiniteSamplesError as error:
        names = ", ".join(rows.subset(list(error.samples)).ids)
        raise NonFiniteFeatureError(
            f"the features of {names} (split {rows.name}) hold NaN or infinity. Look at these "
            "samples; if they are sound, set features.compute_dtype: float32."
        ) from None
    except InputError as error:
        names = ", ".join(rows.ids[:3]) + (f", … {rows.ids[-1]}" if len(rows) > 3 else "")
        raise InputError(f"{error} The batch, in order: {names} of split {rows.name}.") from None


def concatenated(batches: list[Features]) -> Features:
    """The batches of one shard as one record."""
    if len(batches) == 1:
        return batches[0]
    captured = [batch.captured for batch in batches if batch.captured is not None]
    return Features(
        phi=torch.cat([batch.phi for batch in batches]),
        f0=torch.cat([batch.f0 for batch in batches]),
        captured=torch.cat(captured) if captured else None,
    )
