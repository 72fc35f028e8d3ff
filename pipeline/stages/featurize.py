"""The block function of the feature stage: one shard of one split, from samples to marked bytes."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.artefact import ForeignArtefactError
from pipeline.data.batches import AnyPreprocess, LoadBatch, batch_loader
from pipeline.data.split import Split
from pipeline.distributed.ahead import Ahead
from pipeline.distributed.decoders import DecodedAhead, Decoders
from pipeline.distributed.executor import Finish
from pipeline.distributed.worker import peak_resident_bytes
from pipeline.jacobian import FeatureExtractor, Features, NonFiniteSamplesError
from pipeline.log import BlockDone
from pipeline.registry import build_network
from pipeline.sketch.make import build_sketch
from pipeline.store import FeatureStore
from pipeline.store.gathered import GatheredShard
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
    decoders: Decoders | None = None
    """Who loads for the workers; without them each does it in a thread of its own."""

    def locate(self, block: int) -> tuple[SplitJob, int]:
        """The split and the shard that a block number means."""
        job = max((j for j in self.jobs if j.first_block <= block), key=lambda job: job.first_block)
        return job, block - job.first_block


def make_featurizer(spec: FeaturizeSpec) -> "Featurizer":
    """Load the backbone once; what is returned makes one shard after another."""
    return Featurizer(spec)


class Featurizer:
    """Computes the shard of a block, while the next one's samples are loaded; writing is left.

    It reports no rows for a shard that another job has finished or is making.
    """

    def __init__(self, spec: FeaturizeSpec) -> None:
        self._spec = spec
        self._extract = make_extractor(spec)
        self._stores = {job.store: FeatureStore.open(job.store) for job in spec.jobs}
        self._expected: dict[int, Loading] = {}

    def expect(self, block: int) -> None:
        """Begin to load the samples of the next block; one at a time is expected."""
        self._forget_expected()
        job, shard = self._spec.locate(block)
        store = self._stores[job.store]
        if not store.is_done(shard):
            self._expected[block] = Loading(store.samples(shard), self._spec, job)

    def __call__(self, block: int) -> BlockDone | Finish:
        """Compute one shard, with what was expected of it; to write and mark it is left."""
        started = time.perf_counter()
        job, shard = self._spec.locate(block)
        store = self._stores[job.store]
        loading = self._expected.pop(block, None)
        with ExitStack() as holding:
            lease = take_lease(store.place, f"{shard:05d}", self._spec.owner)
            if lease is not None:
                holding.enter_context(lease)
            if lease is None or store.is_done(shard):
                if loading is not None:
                    loading.close()
                return _event(block, 0, time.perf_counter() - started, Pace())
            store.remove_partial(shard)
            loading = loading or Loading(store.samples(shard), self._spec, job)
            gathered = gather(self._extract, store, shard, loading)
            held = holding.pop_all()
        seconds, pace = time.perf_counter() - started, loading.pace

        def write() -> BlockDone:
            with held:
                store.write_shard(shard, gathered)
            return _event(block, gathered.samples, seconds, pace)

        return write

    def _forget_expected(self) -> None:
        for block in list(self._expected):
            loading = self._expected.pop(block, None)  # its own thread may have taken it
            if loading is not None:
                loading.close()


def _event(block: int, rows: int, seconds: float, pace: "Pace") -> BlockDone:
    peak = peak_resident_bytes()
    return BlockDone(STAGE, block, rows, seconds, peak, waited=pace.waited, ready=pace.ready)


def gather(
    extract: FeatureExtractor, store: FeatureStore, shard: int, loading: "Loading"
) -> GatheredShard:
    """Every row of a shard, ready to be written."""
    gathered = store.new_shard(shard)
    for features, rows in extract_batches(extract, loading):
        gathered.add(
            features.phi,
            f0=features.f0,
            labels=rows.labels,
            ids=rows.ids,
            penultimate=features.captured,
        )
    return gathered


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


@dataclass(frozen=True)
class Batch:
    """Samples that are loaded together."""

    split: str
    start: int
    stop: int


@dataclass(frozen=True)
class Pace:
    """Whether loading keeps up with the features."""

    waited: float = 0.0
    """Seconds that the features waited for a batch."""
    ready: float = 0.0
    """Batches that were loaded when one was taken, on average."""


class Loading:
    """The samples of one shard, batch by batch, loaded ahead by decoders or by a thread."""

    def __init__(self, samples: slice, spec: FeaturizeSpec, job: SplitJob) -> None:
        self._spec, self._job = spec, job
        self._waited, self._ready = 0.0, 0
        size, stop = job.batch_size, samples.stop
        self._batches = [
            Batch(job.split.name, start, min(start + size, stop))
            for start in range(samples.start, stop, size)
        ]
        self._loads: DecodedAhead | Ahead[Batch, Inputs]
        if spec.decoders is not None:
            self._loads = spec.decoders.stream(self._batches, spec.decode_timeout)
        else:
            self._loads = Ahead(make_loader(spec), self._batches, timeout=spec.decode_timeout)

    @property
    def pace(self) -> Pace:
        """How it went so far."""
        return Pace(self._waited, self._ready / len(self._batches))

    def close(self) -> None:
        """Load nothing more."""
        self._loads.close()

    def __iter__(self) -> Iterator[tuple[Inputs, Split]]:
        loads = iter(self._loads)
        for batch in self._batches:
            rows = self._job.split.subset(slice(batch.start, batch.stop))
            self._ready += self._loads.ready()
            asked = time.perf_counter()
            try:
                inputs = next(loads)
            except InputError:
                raise  # it names the sample itself
            except Exception as error:
                culprit = undecodable(
                    batch_loader(self._spec.preprocess), rows, self._spec.decode_timeout
                )
                raise DecodingError(f"{culprit} of split {rows.name}: {error}") from error
            self._waited += time.perf_counter() - asked
            yield inputs, rows


def extract_batches(
    extract: FeatureExtractor, loading: Loading
) -> Iterator[tuple[Features, Split]]:
    """Features and samples, batch by batch; the next is loaded while one is differentiated."""
    for inputs, rows in loading:
        yield _named(extract, inputs, rows), rows


def make_loader(spec: FeaturizeSpec) -> Callable[[Batch], Inputs]:
    """What loads a batch of any split: in a worker's thread, or in a decoder."""
    load_rows = batch_loader(spec.preprocess)
    splits = {job.split.name: job.split for job in spec.jobs}
    return lambda batch: load_rows(splits[batch.split], slice(batch.start, batch.stop))


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
