"""The block function of the feature stage: one shard of one split, from samples to marked bytes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

from pipeline.artefact import ForeignArtefactError
from pipeline.data.split import Split
from pipeline.distributed.executor import Finish
from pipeline.distributed.worker import peak_resident_bytes
from pipeline.jacobian import FeatureExtractor, Features, NonFiniteSamplesError
from pipeline.log import BlockDone
from pipeline.models.weights import shown
from pipeline.registry import build_network
from pipeline.sketch.make import build_sketch
from pipeline.stages.featurize_spec import STAGE, FeaturizeSpec
from pipeline.stages.loading import Loading, Pace
from pipeline.store import FeatureStore
from pipeline.store.gathered import GatheredShard
from pipeline.store.lease import take_lease
from pipeline.store.precision import NonFiniteFeatureError
from pipeline.types import InputError, Inputs


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
        with suppress(OSError):  # The block itself will meet it, and tell.
            if store.is_done(shard):
                return
            self._expected[block] = Loading(store.samples(shard), self._spec, job)

    def __call__(self, block: int) -> BlockDone | Finish:
        """Compute one shard, with what was expected of it; to write and mark it is left."""
        started = time.perf_counter()
        job, shard = self._spec.locate(block)
        store = self._stores[job.store]
        loading = self._expected.pop(block, None)
        with ExitStack() as holding:
            if loading is not None:
                holding.callback(loading.close)
            lease = take_lease(store.place, f"{shard:05d}", self._spec.owner)
            if lease is not None:
                holding.enter_context(lease)
            if lease is None or store.is_done(shard):
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


def _event(block: int, rows: int, seconds: float, pace: Pace) -> BlockDone:
    peak = peak_resident_bytes()
    return BlockDone(STAGE, block, rows, seconds, peak, waited=pace.waited, ready=pace.ready)


def gather(
    extract: FeatureExtractor, store: FeatureStore, shard: int, loading: Loading
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


def extract_batches(
    extract: FeatureExtractor, loading: Loading
) -> Iterator[tuple[Features, Split]]:
    """Features and samples, batch by batch; the next is loaded while one is differentiated."""
    for inputs, rows in loading:
        yield _named(extract, inputs, rows), rows


def _named(extract: FeatureExtractor, inputs: Inputs, rows: Split) -> Features:
    """Features of one batch; what the engine refuses is told with the samples' names."""
    try:
        return extract(inputs)
    except NonFiniteSamplesError as error:
        names = shown(rows.subset(list(error.samples)).ids)
        raise NonFiniteFeatureError(
            f"the features of {names} (split {rows.name}) hold NaN or infinity. Look at these "
            "samples; if they are sound, set features.compute_dtype: float32; if all samples do, "
            "look at the weights, such as a BatchNorm's negative running_var."
        ) from None
    except InputError as error:
        names = ", ".join(rows.ids[:3]) + (f", … {rows.ids[-1]}" if len(rows) > 3 else "")
        raise InputError(f"{error} The batch, in order: {names} of split {rows.name}.") from None
