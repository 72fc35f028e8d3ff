"""What the stages of one run share: the config made into objects, before any work starts."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.data.split import Benchmark, Split
from pipeline.log import BlockDone
from pipeline.models.network import Network
from pipeline.registry import RunConfig, build_benchmark, build_network
from pipeline.runs import RunFolder
from pipeline.sketch.make import build_sketch
from pipeline.types import InputError

logger = logging.getLogger(__name__)


class Progress(Protocol):
    """Who watches a run: a progress bar, or nobody."""

    def start(self, stage: str, total: int, done: int = 0, unit: str = "rows") -> None:
        """A stage begins; ``done`` of ``total`` units were there already."""

    def advance(self, event: BlockDone) -> None:
        """One block is finished."""

    def finish(self, stage: str) -> None:
        """The stage has ended."""


class Silence:
    """Nobody watches."""

    def start(self, stage: str, total: int, done: int = 0, unit: str = "rows") -> None:
        """Nothing is shown."""

    def advance(self, event: BlockDone) -> None:
        """Nothing is shown."""

    def finish(self, stage: str) -> None:
        """Nothing is shown."""


@dataclass(frozen=True)
class Job:
    """One run, resolved."""

    config: RunConfig
    folder: RunFolder
    benchmark: Benchmark
    progress: Progress

    @property
    def evaluated(self) -> list[str]:
        """The splits that get predictions, the selection split first."""
        names = [n for n in self.benchmark.splits if n not in ("train", "pretrain")]
        return sorted(names, key=lambda name: (name != self.config.selection, names.index(name)))

    @property
    def featurized(self) -> list[str]:
        """The splits that get features."""
        return ["train", *self.evaluated]

    @property
    def metric(self) -> str:
        """What the table leads with."""
        return "accuracy" if self.benchmark.classes else "mse"

    def split(self, name: str) -> Split:
        """A split of the benchmark by name."""
        return self.benchmark.splits[name]

    def labels_digest(self, *names: str) -> dict[str, str]:
        """Digests of the labels of some splits, for the provenance of what was fitted on them."""
        return {name: self.split(name).label_digest() for name in names}


@dataclass(frozen=True)
class Instrument:
    """The network, ready to be differentiated, and the sketch of its parameters."""

    network: Network
    sketch: Any
    model_options: Any
    """Options from which a worker builds the same network again."""
    state_digest: str
    """SHA-256 of the network's final state, new head included."""


def make_job(config: RunConfig, folder: RunFolder, progress: Progress) -> Job:
    """The job of a config; the benchmark is read and checked here."""
    benchmark = build_benchmark(config.benchmark)
    if config.selection not in benchmark.splits:
        raise InputError(
            f"the benchmark has no split {config.selection!r} to choose on; it has "
            f"{', '.join(benchmark.splits)}. Hold out some training data for it.",
            "selection",
        )
    return Job(config, folder, benchmark, progress)


def make_instrument(config: RunConfig, weights: Path | None = None) -> Instrument:
    """Network and sketch of a config; ``weights`` are those that the run trained itself."""
    options = config.model
    if weights is not None:
        options = options.model_copy(update={"weights": weights})
    network = build_network(options)
    for note in network.notes:
        logger.warning("%s", note)
    sketch = build_sketch(config.sketch, network.module)
    return Instrument(network, sketch, options, network.state_digest())


def stage_provenance(stage: str, **inputs: Any) -> Mapping[str, Any]:
    """What a stage's artefact was made from; the version changes when a stage's meaning does."""
    return {"stage": stage, "version": 1, **inputs}
