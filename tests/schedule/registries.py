"""Small registries: networks without training on the embedded digits."""

from pathlib import Path

import torch

from pipeline.config import write_yaml
from pipeline.models.small_cnn import SmallCNNOptions, build

SMALL = {
    "config": {
        "baselines": [],
        "executor": {"kind": "local", "workers": 1, "threads": 1},
        "solver": {"kind": "eigh"},
    },
    "sketches": {"uniform300": {"kind": "uniform", "size": 300, "seed": 0}},
    "benchmarks": {
        name: {
            "kind": "digits",
            "seed": seed,
            "limit": {"train": 60, "val": 30, "id_test": 40, "ood_test": 40},
        }
        for seed, name in enumerate(("digits_a", "digits_b"))
    },
}


def save_weights(path: Path, seed: int) -> Path:
    """A checkpoint of a tiny network."""
    network = build(SmallCNNOptions(widths=(4, 8), seed=seed))
    torch.save(network.module.state_dict(), path)
    return path


def small_model(weights: Path) -> dict:
    return {"model": {"kind": "small_cnn", "widths": [4, 8], "weights": str(weights)}}


def write_registry(folder: Path, models: dict, **changes) -> Path:
    """A registry file whose features lie in ``folder/cache``."""
    config = {**SMALL["config"], "store": {"root": str(folder / "cache")}}
    path = folder / "weekly.yaml"
    write_yaml(path, {**SMALL, "config": config, "models": models, **changes})
    return path


ONE_BENCHMARK = {"benchmarks": {"digits_a": SMALL["benchmarks"]["digits_a"]}}
