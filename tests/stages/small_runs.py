"""Small runs of the whole job on the embedded digits, and what tests ask of them."""

import os
import subprocess
import sys
import time
from pathlib import Path

from pipeline.artefact import read_json
from pipeline.registry import RunConfig, load_config
from pipeline.runs import RunFolder
from pipeline.stages.job import Silence
from pipeline.stages.run import run_job
from pipeline.stages.status import read_events

ROOT = Path(__file__).parents[2]

SMALL = (
    "pretrain.epochs=2",
    "sketch.size=1500",
    "benchmark.limit={train: 200, val: 60, id_test: 80}",
    "baselines=[linear_probe_ridge]",
    "executor={kind: local, workers: 1, threads: 1}",
)


def small_config(cache: Path, *overrides: str) -> RunConfig:
    """The quickstart, made small, with features kept in ``cache``."""
    sets = [*SMALL, f"store.root={cache}", *overrides]
    return load_config(ROOT / "configs/quickstart.yaml", sets)


def run(folder: Path, cache: Path, *overrides: str) -> RunFolder:
    """A whole run in this process."""
    run_folder = RunFolder(folder)
    run_job(small_config(cache, *overrides), run_folder, Silence())
    return run_folder


def events(folder: RunFolder, name: str) -> list[dict]:
    return [event for event in read_events(folder.events) if event["event"] == name]


def stores(folder: RunFolder) -> dict[str, Path]:
    return {name: Path(entry["store"]) for name, entry in read_json(folder.features).items()}


def start(folder: Path, cache: Path, *overrides: str) -> subprocess.Popen:
    """The command line in a process of its own."""
    texts = (*SMALL, f"store.root={cache}", *overrides)
    sets = [part for text in texts for part in ("--set", text)]
    entk = Path(sys.executable).with_name("entk")
    command = [str(entk), "run", str(ROOT / "configs/quickstart.yaml")]
    return subprocess.Popen(
        [*command, "--out", str(folder), *sets],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder.parent,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )


def wait_for(condition, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("what was waited for did not happen")
