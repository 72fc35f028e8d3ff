"""Networks of a user's own, through the whole job: what is wrong with them is said at once."""

import numpy as np
import pytest

from pipeline.registry import RunConfig
from pipeline.runs import RunFolder
from pipeline.stages.job import Silence
from pipeline.stages.run import run_job
from pipeline.types import InputError

SOURCE = """
import torch
from torch import nn


class Network(nn.Module):
    def __init__(self, first, after):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.first = first
        self.head = nn.Linear(4, 1)
        self.after = after

    def forward(self, x):
        return self.after(self.head(self.conv(self.first(x)).tanh().mean((2, 3))))


class Dropping(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5)


class Centring(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class Bright(nn.Module):
    # The root of a negative number for an image with a bright spot.
    def forward(self, x):
        return torch.where(x.amax((1, 2, 3), keepdim=True) > 0.9, -x, x).sqrt()


FIRSTS = {
    "none": nn.Identity,
    "dropping": Dropping,
    "centring": Centring,
    "norm": lambda: nn.BatchNorm2d(1, track_running_stats=False),
    "bright": Bright,
}
AFTERS = {"none": nn.Identity, "softmax": lambda: nn.Softmax(1)}


def network(first="none", after="none"):
    return Network(FIRSTS[first](), AFTERS[after]()), "head"


def listed():
    class Listing(Network):
        def forward(self, x):
            return {"scores": super().forward(x)}

    return Listing(nn.Identity(), nn.Identity()), "head"
"""

SIZES = {"train": 40, "val": 10, "id_test": 10}


@pytest.fixture
def config(tmp_path):
    """A config of a run on random images of two classes, but for its network."""
    (tmp_path / "mine.py").write_text(SOURCE)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in SIZES.items():
        labels = np.arange(n) % 2
        arrays[f"{split}_labels"] = labels
        images = rng.integers(0, 90, (n, 6, 6)) + 60 * labels[:, None, None]
        arrays[f"{split}_images"] = images.astype(np.uint8)
    np.savez(tmp_path / "data.npz", **arrays)

    def made(function: str, **kwargs: str) -> RunConfig:
        return RunConfig.model_validate(
            {
                "benchmark": {
                    "kind": "arrays",
                    "path": str(tmp_path / "data.npz"),
                    "preprocess": {"channels": 1},
                },
                "model": {
                    "kind": "factory",
                    "path": f"{tmp_path}/mine.py:{function}",
                    "kwargs": kwargs,
                },
                "sketch": {"kind": "full"},
                "features": {"batch_size": 7},
                "executor": {"kind": "local", "workers": 1, "threads": 1},
                "store": {"root": str(tmp_path / "cache")},
            }
        )

    return made


def run(config: RunConfig, folder) -> RunFolder:
    run_folder = RunFolder(folder)
    run_job(config, run_folder, Silence())
    return run_folder


def test_a_network_from_a_file_runs_to_the_table(config, tmp_path):
    assert run(config("network"), tmp_path / "run").metrics.is_file()


@pytest.mark.parametrize(
    ("function", "kwargs", "message"),
    [
        ("network", {"after": "softmax"}, "returns other numbers.*raw logits"),
        ("listed", {}, "returns a dict; expected a tensor of logits"),
        ("network", {"first": "norm"}, "first is a BatchNorm2d that normalizes with its batch"),
        ("network", {"first": "dropping"}, "first gives another output when it runs again"),
        ("network", {"first": "centring"}, "first mixes the samples of a batch"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused_before_work_starts(
    config, tmp_path, function, kwargs, message
):
    with pytest.raises(InputError, match=message):
        run(config(function, **kwargs), tmp_path / "run")


def test_a_sample_that_gives_nan_is_named(config, tmp_path):
    path = tmp_path / "data.npz"
    arrays = dict(np.load(path))
    arrays["train_images"][23, 2, 3] = 255
    np.savez(path, **arrays)
    message = r"features of train_images:23 \(split train\) hold NaN"
    with pytest.raises(InputError, match=message):
        run(config("network", first="bright"), tmp_path / "run")


def test_a_network_that_gives_nan_for_every_sample_names_a_few_and_the_weights(config, tmp_path):
    path = tmp_path / "data.npz"
    arrays = dict(np.load(path))
    arrays["train_images"][:, 2, 3] = 255
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"and \d+ more .*look at the weights") as refused:
        run(config("network", first="bright"), tmp_path / "run")
    assert str(refused.value).count("train_images:") < 10
