"""CIFAR-100 as it is: 100 classes, training and test images, no shift (Krizhevsky 2009)."""

from typing import Annotated, Literal

import numpy as np

from pipeline.data.assemble import FileBenchmarkOptions, Pool, Rules, assemble
from pipeline.data.locate import require_folder, require_shards
from pipeline.data.parquet import ParquetSource
from pipeline.data.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PreprocessOptions,
    over_default,
)
from pipeline.data.split import Benchmark
from pipeline.types import InputError

CLASSES = 100


EXPECTED = (
    "CIFAR-100 in Parquet: train-*.parquet and test-*.parquet with the columns image, fine_label "
    "and coarse_label"
)
WHERE_TO_GET = "https://huggingface.co/datasets/uoft-cs/cifar100"

PREPROCESS = PreprocessOptions(mean=IMAGENET_MEAN, std=IMAGENET_STD)


class Cifar100FileOptions(FileBenchmarkOptions):
    """What every benchmark made of CIFAR-100's files is told."""

    path: str
    """Folder with CIFAR-100 in Parquet."""
    duplicates: Literal["stop", "drop"] = "drop"
    """CIFAR-100 holds copies across its own train and test sets; they leave the training images."""
    preprocess: Annotated[PreprocessOptions, over_default(PREPROCESS)] = PREPROCESS
    """Preprocessing; the default is that of the CIFAR-10 ResNets of He et al.'s design."""


class Cifar100Options(Cifar100FileOptions):
    """CIFAR-100's classes: ``val`` is held out of the training images, ``id_test`` is the test."""

    kind: Literal["cifar100"] = "cifar100"


def open_train_and_test(path: str) -> tuple[ParquetSource, ParquetSource]:
    """The images of CIFAR-100's training and test files."""
    folder = require_folder(path, EXPECTED, WHERE_TO_GET)
    train = ParquetSource.open(require_shards(folder, "train", EXPECTED, WHERE_TO_GET))
    test = ParquetSource.open(require_shards(folder, "test", EXPECTED, WHERE_TO_GET))
    return train, test


def build(options: Cifar100Options) -> Benchmark:
    """Splits ``train``, ``val`` and ``id_test`` (at most 10,000)."""
    train, test = open_train_and_test(options.path)
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
