"""The samples of a shard, loaded while others are differentiated; what cannot be read is named."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.data.batches import LoadBatch, batch_loader
from pipeline.data.split import Split
from pipeline.distributed.ahead import Ahead
from pipeline.distributed.decoders import DecodedAhead
from pipeline.stages.featurize_spec import FeaturizeSpec, SplitJob
from pipeline.types import InputError, Inputs


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
        decoded = spec.decoders and spec.decoders.stream(self._batches, spec.decode_timeout)
        self._loads: DecodedAhead | Ahead[Batch, Inputs] = decoded or Ahead(
            make_loader(spec), self._batches, timeout=spec.decode_timeout
        )

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
