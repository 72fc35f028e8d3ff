"""A run's folder: the names of what lies in it, its lock, its events, versions and timing.

```text
runs/NAME/
  config.yaml       the resolved config; it runs again as it is
  versions.json     code, libraries, hardware, and the command that started last
  notes.json        what the reader must know of network and benchmark
  manifests/        each split's samples: id, label, domain, content hash
  plan.json         bytes, memory, batch size and strategy, fixed before work starts
  events.jsonl      what happened when
  model/            weights that this run trained itself
  features.json     where the features of each split lie in the cache
  kernel/  fit/METHOD/  curves/METHOD/  predictions/METHOD/  baselines/METHOD/
  columns/          scores over the number of kept parameters
  spectrum/         K's eigenvalues, and the effective dimension over the ridges
  outside_span/     how far test rows lie outside the span of the training features
  comparisons/      intervals, paired differences, agreement, reliability, effective robustness
  mistakes/         the most confident mistakes, and the training samples behind them
  metrics.json      the results; no timing in it
  timing.json       seconds, rates, bytes of each stage
  report.md  report.html
```
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from pipeline import __version__
from pipeline.artefact import atomic_path, read_json, write_json
from pipeline.config import read_yaml, write_yaml
from pipeline.store.place import Location, as_location, on_disk
from pipeline.types import InputError

REPORTED_LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "zarr",
    "ray",
    "dask",
    "transformers",
    "pydantic",
)


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run's folder."""

    path: Path

    def __post_init__(self) -> None:
        on_disk(self.path)

    @property
    def lock(self) -> Path:
        """Held by the process that runs."""
        return self.path / ".lock"

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        """What the planner fixed."""
        return self.path / "plan.json"

    @property
    def versions(self) -> Path:
        """Code, libraries and hardware."""
        return self.path / "versions.json"

    @property
    def events(self) -> Path:
        """One JSON object a line."""
        return self.path / "events.jsonl"

    @property
    def features(self) -> Path:
        """Where each split's features lie in the cache."""
        return self.path / "features.json"

    def feature_stores(self) -> dict[str, Location]:
        """Where each split's features lie, by name; empty before that is known.

        What was written from another working folder, or where the storage had another name, is
        found where it lies relative to this folder.
        """
        if not self.features.is_file():
            return {}
        return {name: self._seen_from_here(e) for name, e in read_json(self.features).items()}

    def _seen_from_here(self, entry: Mapping[str, str]) -> Location:
        store = as_location(entry["store"])
        if isinstance(store, Path) and not store.exists() and "from_run" in entry:
            beside = Path(os.path.normpath(self.path.absolute() / entry["from_run"]))
            return beside if beside.exists() else store
        return store

    def entry_of(self, store: Location) -> dict[str, str]:
        """A store's place for ``features.json``; see :meth:`feature_stores`."""
        if not isinstance(store, Path):
            return {"store": store}
        relative = os.path.relpath(store.absolute(), self.path.absolute())
        return {"store": str(store), "from_run": relative}

    @property
    def notes(self) -> Path:
        """What the report says of network and benchmark."""
        return self.path / "notes.json"

    @property
    def manifests(self) -> Path:
        """Each split's samples, one CSV a split."""
        return self.path / "manifests"

    @property
    def model(self) -> Path:
        """Weights that this run trained itself."""
        return self.path / "model"

    @property
    def kernel(self) -> Path:
        """All blocks of K."""
        return self.path / "kernel"

    @property
    def metrics(self) -> Path:
        """The results."""
        return self.path / "metrics.json"

    @property
    def timing(self) -> Path:
        """Seconds, rates and bytes of each stage."""
        return self.path / "timing.json"

    def fit(self, method: str) -> Path:
        """A method's fitted solution."""
        return self.path / "fit" / method

    def curves(self, method: str) -> Path:
        """A method's scores along its path, on every split, computed after the choice."""
        return self.path / "curves" / method

    @property
    def columns(self) -> Path:
        """Scores over the number of kept parameters."""
        return self.path / "columns"

    @property
    def spectrum(self) -> Path:
        """K's eigenvalues, and the effective dimension over the ridges."""
        return self.path / "spectrum"

    @property
    def outside_span(self) -> Path:
        """The share of every evaluated row outside the span of the training features."""
        return self.path / "outside_span"

    @property
    def comparisons(self) -> Path:
        """Methods beside each other: intervals, differences, agreement, calibration."""
        return self.path / "comparisons"

    @property
    def mistakes(self) -> Path:
        """The most confident mistakes, with their images."""
        return self.path / "mistakes"

    def predictions(self, method: str) -> Path:
        """A method's scores, one file a split."""
        return self.path / "predictions" / method

    def methods(self) -> list[str]:
        """The methods with finished predictions, in the order of their names."""
        folder = self.path / "predictions"
        done = folder.glob("*/provenance.json") if folder.is_dir() else ()
        return sorted(file.parent.name for file in done)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; a second run of the same folder is refused."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.lock, blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise InputError(
                f"another process is running in {self.path}. Watch it with: entk status {self.path}"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def record_event(self, event: str, **facts: Any) -> None:
        """Append one line to ``events.jsonl``, with the time (UTC)."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self.events.open("a") as file:
            file.write(json.dumps({"time": stamp, "event": event, **facts}, default=str) + "\n")

    @contextlib.contextmanager
    def failure_recorded(self) -> Iterator[None]:
        """Inside, an error that ends the run is an event, too, where the disk has room for it."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(OSError):
                self.record_event("run_failed", error=str(error))
            raise

    def record_timing(self, stage: str, facts: Mapping[str, Any]) -> None:
        """Add one stage's figures to ``timing.json``; ``seconds`` add up over resumed runs."""
        timing = read_json(self.timing) if self.timing.is_file() else {}
        before = timing.get(stage, {}).get("seconds", 0.0)
        timing[stage] = {**facts, "seconds": round(before + facts["seconds"], 3)}
        write_json(self.timing, timing)

    def write_config(self, resolved: Mapping[str, Any]) -> None:
        """Keep the resolved config and the versions; results of another config go."""
        if self.config.is_file() and read_yaml(self.config) != resolved:
            for stale in (self.metrics, *self.path.glob("report.*")):
                stale.unlink(missing_ok=True)
        with atomic_path(self.config) as partial:
            write_yaml(partial, resolved)
        write_json(self.versions, versions())


def versions() -> dict[str, Any]:
    """Code, libraries and hardware of this process, its command and when it started (UTC).

    The command is quoted, so that a shell takes it as it stands.
    """
    import psutil

    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "entk": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in REPORTED_LIBRARIES},
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": psutil.cpu_count(logical=True),
            "memory_bytes": psutil.virtual_memory().total,
            "gpus": _gpus(),
        },
        "command": shlex.join(sys.argv),
    }


def _commit() -> str | None:
    """The git commit of the code, with ``-dirty`` where files differ from it; none if installed.

    A package that merely lies inside another project's checkout is not tracked there.
    """
    if not _git("ls-files", "__init__.py"):
        return None
    return _git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty") or None


def _git(*arguments: str) -> str:
    """What git prints of this package's folder; nothing where there is no git or no checkout."""
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
