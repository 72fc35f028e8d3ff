"""What Ray and the store cost, and what more workers bring: the CIFAR-100 benchmark's features.

    python scripts/bench_scaling.py [--quick] [--workers 1 2 3] [--repeats 5] [--scan 10000]

The same shards, again and again: differentiated in this process with nothing stored (bare), made by
the in-process executor, and by Ray with so many workers, several of which then make them once more
with nothing stored (the ceiling of that many cores); one thread each, in turn. Ratios compare
contenders within a repeat, so that another load on the machine meets all of them; start-up is told
apart. A worker is idle while it computes no shard and while it waits for samples. Then the scan for
missing shards in a store of finished ones (``--repeats 0`` for that alone). The last line is JSON
with medians.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.distributed.cluster import connect
from pipeline.distributed.executor import Executor, MakeWorker
from pipeline.distributed.local import LocalExecutor
from pipeline.distributed.ray import RayExecutor
from pipeline.distributed.worker import computing_threads, kept_memory
from pipeline.log import BlockDone
from pipeline.registry import load_config
from pipeline.runs import RunFolder
from pipeline.stages.features import make_spec
from pipeline.stages.featurize import extract_batches, make_extractor, make_featurizer
from pipeline.stages.featurize_spec import FeaturizeSpec, SplitJob
from pipeline.stages.job import Silence, make_instrument, make_job
from pipeline.stages.loading import Loading
from pipeline.store import FeatureStore

CONFIG = Path(__file__).parents[1] / "configs/cifar100_superclasses.yaml"

BARE, IN_PROCESS = "bare", "in process"


def main() -> None:
    arguments = parsed()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        if arguments.repeats:
            bench = Bench(Path(name), arguments.rows, arguments.batch)
            figures = summarized(bench.repeated(arguments.workers, arguments.repeats))
        figures["scan_shards"] = arguments.scan
        figures["scan_seconds"] = scan_seconds(Path(name) / "scan", arguments.scan)
    for key, value in figures.items():
        print(f"{key:>26}: {value}")
    print(json.dumps({"bench": "scaling", "rows": arguments.rows, **figures}))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="128 rows, one repeat, 200 shards")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=128, help="as the plan of this config has it")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scan", type=int, default=10_000, help="finished shards to scan")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.batch = 128, 16
        arguments.workers, arguments.repeats, arguments.scan = [1], 1, 200
    return arguments


@dataclass(frozen=True)
class Pass:
    """All shards made once."""

    seconds: float
    """Of work, from the first ready worker on."""
    startup: float
    idle: float
    """Share of the workers' time."""


def summarized(passes: dict[str, list[Pass]]) -> dict[str, Any]:
    """Medians over the repeats; the first pass of each contender told only its start-up."""
    seconds = {name: [one.seconds for one in found[1:]] for name, found in passes.items()}
    figures: dict[str, Any] = {
        "seconds": {name: round(statistics.median(v), 3) for name, v in seconds.items()},
        "startup_seconds": {name: round(found[0].startup, 2) for name, found in passes.items()},
        "idle_share": {
            name: round(statistics.median(one.idle for one in found[1:]), 4)
            for name, found in passes.items()
        },
        "overhead_in_process": median_ratio(seconds[IN_PROCESS], seconds[BARE]) - 1,
    }
    single = seconds.get("ray 1")
    if single is not None:
        figures["overhead_of_ray_and_zarr"] = median_ratio(single, seconds[BARE]) - 1
        for name, values in seconds.items():
            if name.startswith("ray") and name != "ray 1":
                figures[f"speedup {name}"] = median_ratio(single, values)
            if name.startswith("unstored"):
                figures[f"speedup {name}"] = median_ratio(seconds[BARE], values)
    return figures


def median_ratio(above: list[float], below: list[float]) -> float:
    """The median of the repeats' ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


class Bench:
    """The benchmark's training features, made again and again in stores of their own."""

    def __init__(self, folder: Path, rows: int, batch: int) -> None:
        sets = [f"benchmark.limit={{train: {rows}, val: 60, id_test: 60, ood_test: 60}}"]
        config = load_config(CONFIG, sets)
        self._job = make_job(config, RunFolder(folder / "run"), Silence())
        self._instrument = make_instrument(config)
        self._split = self._job.split("train")
        self._folder, self._batch, self._stores = folder, batch, 0

    def repeated(self, workers: list[int], repeats: int) -> dict[str, list[Pass]]:
        """Every contender's passes, the contenders in turn; one more than asked for, the first."""
        connect(None, cores=sum(workers))  # all of them stay, warm and idle while others work
        executors: dict[str, Executor] = {IN_PROCESS: LocalExecutor(threads=1)}
        executors |= {f"ray {w}": RayExecutor(workers=w, threads=1) for w in workers}
        passes = defaultdict(list)
        for _ in range(repeats + 1):
            passes[BARE].append(self._bare())
            for name, executor in executors.items():
                passes[name].append(self._made_by(executor, make_featurizer))
                if executor.workers > 1:
                    passes[f"unstored {name}"].append(self._made_by(executor, make_unstored))
        for executor in executors.values():
            executor.close()
        return dict(passes)

    def _bare(self) -> Pass:
        """Decoding and differentiation alone."""
        job, spec = self._split_job(self._folder)
        with computing_threads(1), kept_memory():
            started = time.perf_counter()
            extract = make_extractor(spec)
            ready = time.perf_counter()
            loading = Loading(slice(0, len(self._split)), spec, job)
            for _ in extract_batches(extract, loading):
                pass
            seconds = time.perf_counter() - ready
        return Pass(seconds, ready - started, loading.pace.waited / seconds)

    def _made_by(self, executor: Executor, make_worker: MakeWorker) -> Pass:
        store = self._new_store()
        _, spec = self._split_job(Path(str(store.path)))
        events: list[BlockDone] = []
        outcome = executor.run(make_worker, spec, range(store.shards), events.append)
        assert make_worker is make_unstored or store.missing_rows() == []
        shutil.rmtree(store.path)
        waited = sum(event.waited for event in events)
        idle = 1 - (outcome.busy_seconds - waited) / (outcome.work_seconds * executor.workers)
        return Pass(outcome.work_seconds, outcome.startup_seconds, idle)

    def _new_store(self) -> FeatureStore:
        self._stores += 1
        network, p = self._instrument.network, self._instrument.sketch.size
        return FeatureStore.create(
            self._folder / f"store-{self._stores}",
            n=len(self._split),
            p=p,
            provenance={},
            rows_per_shard=2 * self._batch,
            h=network.width,
            k=network.outputs,
        )

    def _split_job(self, store: Path) -> tuple[SplitJob, FeaturizeSpec]:
        job = SplitJob(self._split, store, 0, self._batch)
        return job, make_spec(self._job, self._instrument, "cpu", [job], store.name)


def make_unstored(spec: FeaturizeSpec) -> Callable[[int], BlockDone]:
    """Shards that are computed and forgotten."""
    extract = make_extractor(spec)
    store = FeatureStore.open(spec.jobs[0].store)

    def block_function(block: int) -> BlockDone:
        started = time.perf_counter()
        loading = Loading(store.samples(block), spec, spec.jobs[0])
        rows = sum(len(samples) for _, samples in extract_batches(extract, loading))
        return BlockDone("unstored", block, rows, time.perf_counter() - started, 0)

    return block_function


def scan_seconds(path: Path, shards: int) -> float:
    """Seconds to find that nothing is missing of so many finished shards (of one tiny row each)."""
    store = FeatureStore.create(path, n=shards, p=2, provenance={}, rows_per_shard=1)
    row = torch.ones(1, 2)
    store.write_rows(0, row, f0=np.zeros((1, 1)), labels=np.zeros(1, int), ids=["0"])
    contents = {
        key: store.place.read(key)
        for key in store.place.sizes()
        if key.startswith(("features/c", "rows", "done"))
    }
    for shard in range(1, shards):
        for key, content in contents.items():
            copy = path / key.replace("c/0/", f"c/{shard}/").replace("00000", f"{shard:05d}")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
    started = time.perf_counter()
    missing = FeatureStore.open(path).missing_rows()
    seconds = time.perf_counter() - started
    assert missing == []
    return seconds


if __name__ == "__main__":
    main()
