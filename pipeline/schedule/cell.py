"""One cell of a registry at one revision: what it is made from, its run, its line of history."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artefact import digest
from pipeline.config import expand_environment, validated
from pipeline.history import Entry, Task, scored
from pipeline.registry import RunConfig
from pipeline.runs import RunFolder
from pipeline.stages.features import provenance
from pipeline.stages.job import Progress, Silence, make_instrument, make_job
from pipeline.stages.run import run_job
from pipeline.store.place import place_at

SCORING = ("kernel", "solver", "baselines", "selection", "refit")
"""Parts of a config on which scores depend, beside features and labels."""


@dataclass(frozen=True)
class Cell:
    """A task whose model, benchmark and sketch were read: what its scores depend on is known."""

    task: Task
    config: RunConfig
    source: str
    """Where the weights came from."""
    revision: str
    """First digits of the hash of the network's weights."""
    key: str
    """Digest of everything that determines features and scores."""
    folder: RunFolder
    """The run of this revision."""


def read_cell(task: Task, values: dict[str, Any], source: str, root: Path) -> Cell:
    """The cell of a task: its config is checked, weights and samples are hashed, nothing is run."""
    config = validated(RunConfig, expand_environment(values), str(task))
    job = make_job(config, RunFolder(root), Silence())
    instrument = make_instrument(config)
    resolved = config.model_dump(mode="json")
    key = digest(
        {
            "features": {n: provenance(job, instrument, job.split(n)) for n in job.featurized},
            "labels": job.labels_digest(*job.featurized),
            "scoring": {name: resolved[name] for name in SCORING},
        }
    )
    revision = instrument.state_digest[:12]
    folder = root / "runs" / Path(*task) / f"{revision}-{key[:8]}"
    return Cell(task, config, source, revision, key, RunFolder(folder))


def run_cell(cell: Cell, progress: Progress) -> Entry:
    """Do what is missing of a cell's run; its line of history, drift left out."""
    started = time.perf_counter()
    metrics = run_job(cell.config, cell.folder, progress)
    stores = cell.folder.feature_stores()
    return Entry(
        **cell.task._asdict(),
        revision=cell.revision,
        source=cell.source,
        key=cell.key,
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        run=str(Path("runs", *cell.task, cell.folder.path.name)),
        **scored(metrics),
        seconds=round(time.perf_counter() - started, 3),
        bytes=sum(sum(place_at(store).sizes().values()) for store in stores.values()),
        stores={name: str(store) for name, store in stores.items()},
    )


def folder_bytes(path: Path) -> int:
    """Size of all files below a folder, in bytes."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
