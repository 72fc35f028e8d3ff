import logging

import pytest
from pydantic import ValidationError

from pipeline.distributed import choose, cluster
from pipeline.distributed.choose import choose_kind, make_executor
from pipeline.distributed.local import LocalExecutor
from pipeline.distributed.options import ExecutorOptions
from pipeline.types import MissingExtraError

pytestmark = pytest.mark.usefixtures("no_cluster")


@pytest.fixture
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def with_ray(monkeypatch):
    monkeypatch.setattr(choose, "ray_installed", lambda: True)


@pytest.fixture
def without_ray(monkeypatch):
    monkeypatch.setattr(choose, "ray_installed", lambda: False)
    monkeypatch.setattr(cluster, "ray_installed", lambda: False)


@pytest.mark.usefixtures("with_ray")
def test_auto_is_local_for_one_worker():
    assert choose_kind(ExecutorOptions(), workers=1)[0] == "local"


@pytest.mark.usefixtures("with_ray")
def test_auto_is_ray_for_two_workers():
    assert choose_kind(ExecutorOptions(), workers=2) == ("ray", "2 workers")


@pytest.mark.usefixtures("with_ray")
def test_auto_is_ray_for_an_address():
    options = ExecutorOptions(address="head:6379")
    assert choose_kind(options, workers=1) == ("ray", "the cluster at head:6379")


@pytest.mark.usefixtures("with_ray")
def test_auto_is_ray_for_an_address_in_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert choose_kind(ExecutorOptions(), workers=1)[0] == "ray"


@pytest.mark.usefixtures("without_ray")
def test_auto_without_ray_is_local_and_says_so():
    kind, reason = choose_kind(ExecutorOptions(), workers=2)
    assert kind == "local"
    assert "not installed" in reason


@pytest.mark.usefixtures("without_ray")
def test_ray_asked_for_and_missing_names_the_extra():
    executor = make_executor(ExecutorOptions(kind="ray"), workers=2, threads=1)
    with pytest.raises(MissingExtraError, match=r"entk-pipeline\[cluster\]"):
        executor.run(print, None, [0], print)


def test_the_choice_is_logged_with_its_reason(caplog):
    with caplog.at_level(logging.INFO, logger="pipeline"):
        executor = make_executor(ExecutorOptions(kind="local"), workers=4, threads=1)
    assert isinstance(executor, LocalExecutor)
    assert "executor local: asked for" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"threads": -1},
        {"kind": "dask"},
        {"gpus_per_worker": -0.5},
        {"max_retries_per_block": 0},
        {"block_timeout": 0},
    ],
)
def test_senseless_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        ExecutorOptions(**wrong)
