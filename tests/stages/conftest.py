"""Small runs of the whole job, on the embedded digits."""

from pathlib import Path

import pytest

from pipeline.registry import RunConfig, load_config
from pipeline.runs import RunFolder
from pipeline.stages.job import Silence
from pipeline.stages.run import run_job

ROOT = Path(__file__).parents[2]

SMALL = (
    "pretrain.epochs=2",
    "sketch.size=1500",
    "benchmark.limit={train: 200, val: 60, id_test: 80}",
    "baselines=[linear_probe_ridge]",
    "executor={kind: local, workers: 1}",
)


def small_config(cache: Path, *overrides: str) -> RunConfig:
    """The quickstart, made small, with features kept in ``cache``."""
    return load_config(ROOT / "configs/quickstart.yaml", [*SMALL, f"store.root={cache}", *overrides])


def run(folder: Path, cache: Path, *overrides: str) -> RunFolder:
    """A whole run in this process."""
    run_folder = RunFolder(folder)
    run_job(small_config(cache, *overrides), run_folder, Silence())
    return run_folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> RunFolder:
    """A finished run; its cache lies beside it."""
    base = tmp_path_factory.mktemp("undisturbed")
    return run(base / "run", base / "cache")
