import csv
import hashlib

import numpy as np

from pipeline.data.arrays import ArraySource
from pipeline.data.manifest import manifest
from pipeline.data.split import Benchmark, Split

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3, 3), dtype=np.uint8)


def benchmark(labels, **more):
    rows = np.array([2, 0, 3])
    groups = np.array([1, 0, 1]) if more else None
    split = Split("train", ArraySource(IMAGES, "s"), rows, np.array(labels), groups)
    classes = ["cat, tabby", "dog"] if split.labels.ndim == 1 else []
    return Benchmark("b", classes, {"train": split}, **more)


def rows_of(found):
    return list(csv.DictReader(manifest(found, found.splits["train"]).splitlines()))


def test_rows_are_in_the_split_s_order_with_class_domain_and_content_hash():
    found = benchmark([0, 1, 0], group_names=("day", "night"))
    rows = rows_of(found)
    assert [row["id"] for row in rows] == ["s:2", "s:0", "s:3"]
    assert [row["label"] for row in rows] == ["cat, tabby", "dog", "cat, tabby"]
    assert [row["group"] for row in rows] == ["night", "day", "night"]
    assert [row["sha256"] for row in rows] == found.splits["train"].fingerprints()
    assert all(len(row["sha256"]) == len(hashlib.sha256().hexdigest()) for row in rows)


def test_domains_without_names_are_numbered():
    assert [row["group"] for row in rows_of(benchmark([0, 1, 0], group_names=()))] == list("101")


def test_targets_of_a_regression_come_back_exactly():
    targets = [[0.1, -3.0], [1e-17, 2.5], [7.0, 1 / 3]]
    rows = rows_of(benchmark(targets))
    assert [[float(t) for t in row["label"].split()] for row in rows] == targets
    assert {row["group"] for row in rows} == {""}
