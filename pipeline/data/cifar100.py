"""CIFAR-100 as it is: 100 classes, training and test images, no shift (Krizhevsky 2009)."""

from typing import Annotated, Literal

import numpy as np

from pipeline.data.assemble import FileBenchmarkOptions, Pool, Rules, assemble
from pipeline.data.cifar100_superclasses import EXPECTED, PREPROCESS, WHERE_TO_GET
from pipeline.data.locate import require_folder, require_shards
from pipeline.data.parquet import ParquetSource
from pipeline.data.preprocess import PreprocessOptions, over_default
from pipeline.data.split import Benchmark
from pipeline.types import InputError

CLASSES = 100


class Cifar100Options(FileBenchmarkOptions):
    """CIFAR-100's classes: ``val`` is held out of the training images, ``id_test`` is the test."""

    kind: Literal["cifar100"] = "cifar100"
    path: str
    """Folder with CIFAR-100 in Parquet."""
    duplicates: Literal["stop", "drop"] = "drop"
    """CIFAR-100 holds copies across its own train and test sets; they leave the training images."""
    preprocess: Annotated[PreprocessOptions, over_default(PREPROCESS)] = PREPROCESS
    """Preprocessing; the default is that of the CIFAR-10 ResNets of He et al.'s design."""


def build(options: Cifar100Options) -> Benchmark:
    """Splits ``train``, ``val`` and ``id_test`` (at most 10,000)."""
    folder = require_folder(options.path, EXPECTED, WHERE_TO_GET)
    train, test = (
        ParquetSource.open(require_shards(folder, name, EXPECTED, WHERE_TO_GET))
        for name in ("train", "test")
    )
    names = train.class_names("fine_label") or [str(label) for label in range(CLASSES)]
    if len(names) != CLASSES:
        raise InputError(
            f"the files name {len(names)} classes, CIFAR-100 has {CLASSES}.", "benchmark.path"
        )
    pools = {"train": _pool(train), "id_test": _pool(test)}
    return assemble("cifar100", names, pools, Rules.of(options))


def _pool(source: ParquetSource) -> Pool:
    labels = source.column("fine_label")
    return Pool(source, np.arange(len(labels), dtype=np.int64), labels, strata=labels)
