"""What cannot work is refused before anything large is computed."""

import dataclasses

import pytest
from small_runs import small_config

from pipeline.registry import RunConfig
from pipeline.runs import RunFolder
from pipeline.stages import preflight
from pipeline.stages.job import Silence
from pipeline.stages.run import run_job
from pipeline.types import InputError


def large_images(cache) -> RunConfig:
    return small_config(cache, "benchmark.preprocess.resize=1024")


def test_images_whose_layers_no_memory_holds_are_refused_unseen(tmp_path, monkeypatch):
    small = dataclasses.replace(preflight.read_machine(tmp_path), memory_bytes=2**28)
    monkeypatch.setattr(preflight, "read_machine", lambda _: small)
    monkeypatch.setattr(preflight, "check_forward", lambda *_: pytest.fail("ran the network"))
    with pytest.raises(InputError, match=r"one sample needs .* 256\.0 MiB are free"):
        run_job(large_images(tmp_path), RunFolder(tmp_path / "run"), Silence())


def test_sides_beyond_any_network_are_refused_in_the_config(tmp_path):
    with pytest.raises(InputError, match=r"preprocess\.resize: expected a number ≤ 4096"):
        small_config(tmp_path, "benchmark.preprocess.resize=20000")
