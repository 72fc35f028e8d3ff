"""A finished run to study, and the command line in this process."""

from functools import partial
from pathlib import Path

import pytest

from pipeline.registry import load_config
from pipeline.runs import RunFolder
from pipeline.stages.job import Silence
from pipeline.stages.run import run_job

ROOT = Path(__file__).parents[2]
SMALL = (
    "pretrain.epochs=2",
    "sketch.size=1500",
    "benchmark.limit={train: 120, val: 40, id_test: 60}",
    "baselines=[]",
    "executor={kind: local, workers: 1, threads: 1}",
)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("studied")
    config = load_config(
        ROOT / "configs/quickstart.yaml", [*SMALL, f"store.root={folder / 'cache'}"]
    )
    run_job(config, RunFolder(folder / "run"), Silence())
    return folder / "run"


@pytest.fixture
def analyse(entk):
    """`entk analyse …` in an empty folder: exit code and everything printed, on one line."""
    return partial(entk, "analyse")


@pytest.fixture
def study(analyse):
    """A shipped study with some keys changed."""

    def call(name: str, *overrides: str, config: str | None = None) -> tuple[int, str]:
        path = ROOT / f"configs/analyses/{config or name}.yaml"
        sets = [part for text in overrides for part in ("--set", text)]
        return analyse(name, str(path), *sets)

    return call
