"""Texts from a table through a BERT of the transformers library, to the table of results."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from texts import save_bert, save_tokenizer, sentences

from pipeline.artefact import read_json
from pipeline.data.batches import batch_loader
from pipeline.jacobian import jacobian_features
from pipeline.registry import RunConfig, build_benchmark, build_network
from pipeline.runs import RunFolder
from pipeline.sketch.make import build_sketch
from pipeline.stages.job import Silence
from pipeline.stages.run import run_job
from pipeline.store import FeatureStore
from pipeline.types import InputError

pytest.importorskip("transformers")

SPLITS = ["train"] * 60 + ["val"] * 20 + ["id_test"] * 20 + ["ood_test"] * 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The config of a run on sentences, tokenizer and network in local folders."""
    base = tmp_path_factory.mktemp("texts")
    texts, labels = sentences(len(SPLITS))
    with (base / "weather.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "split"])
        writer.writerows(zip(texts, labels, SPLITS, strict=True))
    tokenizer = {"tokenizer": save_tokenizer(base / "tokenizer"), "max_length": 16}
    return {
        "name": "weather",
        "benchmark": {
            "kind": "text_table",
            "path": str(base / "weather.csv"),
            "preprocess": tokenizer,
        },
        "model": {"kind": "transformers", "path": save_bert(base / "bert"), "pooling": "mean"},
        "sketch": {"kind": "uniform", "size": 2000},
        "features": {"dtype": "float32", "batch_size": 8},
        "baselines": ["linear_probe_ridge"],
        "executor": {"kind": "local", "workers": 1, "threads": 1},
        "store": {"root": str(base / "cache")},
    }


def run(values: dict[str, Any], folder: Path) -> RunFolder:
    run_folder = RunFolder(folder)
    run_job(RunConfig.model_validate(values), run_folder, Silence())
    return run_folder


def test_a_run_on_texts_ends_in_a_table_with_features_of_the_engine(made, tmp_path):
    folder = run(made, tmp_path / "run")
    methods = read_json(folder.metrics)["methods"]
    assert methods["entk"]["splits"]["ood_test"]["n"] == 20
    assert methods["entk"]["splits"]["id_test"]["accuracy"] > 0.7
    config = RunConfig.model_validate(made)
    network = build_network(config.model)
    split = build_benchmark(config.benchmark).splits["id_test"]
    inputs = batch_loader(config.benchmark.preprocess)(split, slice(0, 8))
    wanted = jacobian_features(network.module, inputs, build_sketch(config.sketch, network.module))
    store = FeatureStore.open(Path(read_json(folder.features)["id_test"]["store"]))
    found = torch.from_numpy(np.asarray(store.panel(slice(0, 2000)))[:8]) / store.facts.scale
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_baselines_that_train_on_images_are_refused_before_work_starts(made, tmp_path):
    values = {**made, "baselines": ["finetune"]}
    with pytest.raises(InputError, match="finetune: trains on images, and weather holds none"):
        run(values, tmp_path / "run")


def test_texts_longer_than_the_networks_positions_are_refused_in_words(made, tmp_path):
    longer = {**made["benchmark"]["preprocess"], "max_length": 64}
    values = {**made, "benchmark": {**made["benchmark"], "preprocess": longer}}
    with pytest.raises(InputError, match=r"does not run on input_ids \(2, 64\).*max_length"):
        run(values, tmp_path / "run")
