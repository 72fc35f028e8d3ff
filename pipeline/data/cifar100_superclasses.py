"""CIFAR-100's 20 superclasses under a subpopulation shift, in the manner of BREEDS.

Of the five subclasses of each superclass three are the source and two the target, drawn by seed.
Training and validation images come from the source's training images, ``id_test`` from the
source's test images, ``ood_test`` from the target's test images: no target image is trained on.
"""

from typing import Annotated, Literal

import numpy as np

from pipeline.data.assemble import FileBenchmarkOptions, Pool, Rules, assemble
from pipeline.data.locate import require_folder, require_shards
from pipeline.data.order import random_order, stream
from pipeline.data.parquet import ParquetSource
from pipeline.data.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PreprocessOptions,
    over_default,
)
from pipeline.data.split import Benchmark, Rows
from pipeline.types import InputError

SOURCE_SUBCLASSES = 3
SUBCLASSES = 5

SUPERCLASSES = (
    "aquatic_mammals",
    "fish",
    "flowers",
    "food_containers",
    "fruit_and_vegetables",
    "household_electrical_devices",
    "household_furniture",
    "insects",
    "large_carnivores",
    "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores",
    "medium_mammals",
    "non-insect_invertebrates",
    "people",
    "reptiles",
    "small_mammals",
    "trees",
    "vehicles_1",
    "vehicles_2",
)

EXPECTED = (
    "CIFAR-100 in Parquet: train-*.parquet and test-*.parquet with the columns image, fine_label "
    "and coarse_label"
)
WHERE_TO_GET = "https://huggingface.co/datasets/uoft-cs/cifar100"

PREPROCESS = PreprocessOptions(mean=IMAGENET_MEAN, std=IMAGENET_STD)


class Cifar100SuperclassesOptions(FileBenchmarkOptions):
    """CIFAR-100 superclasses: 3 subclasses of each are the source, 2 the target, by seed."""

    kind: Literal["cifar100_superclasses"] = "cifar100_superclasses"
    path: str
    """Folder with CIFAR-100 in Parquet."""
    duplicates: Literal["stop", "drop"] = "drop"
    """CIFAR-100 holds copies across its own train and test sets; they leave the training images."""
    preprocess: Annotated[PreprocessOptions, over_default(PREPROCESS)] = PREPROCESS
    """Preprocessing; the default is that of the CIFAR-10 ResNets of He et al.'s design."""


def build(options: Cifar100SuperclassesOptions) -> Benchmark:
    """Splits ``train``, ``val``, ``id_test`` (at most 6,000) and ``ood_test`` (at most 4,000)."""
    folder = require_folder(options.path, EXPECTED, WHERE_TO_GET)
    train = ParquetSource.open(require_shards(folder, "train", EXPECTED, WHERE_TO_GET))
    test = ParquetSource.open(require_shards(folder, "test", EXPECTED, WHERE_TO_GET))
    source_fine = _source_subclasses(train, options.seed)
    pools = {
        "train": _pool(train, source_fine, inside=True),
        "id_test": _pool(test, source_fine, inside=True),
        "ood_test": _pool(test, source_fine, inside=False),
    }
    notes = [_subclass_note(train.class_names("fine_label"), source_fine)]
    return assemble("cifar100_superclasses", SUPERCLASSES, pools, Rules.of(options), notes=notes)


def _source_subclasses(train: ParquetSource, seed: int) -> Rows:
    """Fine labels of the source (60,): three of each superclass, drawn by seed."""
    fine, coarse = train.column("fine_label"), train.column("coarse_label")
    rng = stream(seed, "source subclasses")
    chosen: list[int] = []
    for superclass, name in enumerate(SUPERCLASSES):
        members = np.unique(fine[coarse == superclass])
        if len(members) != SUBCLASSES:
            raise InputError(
                f"superclass {superclass} ({name}) has {len(members)} subclasses in the training "
                f"files, CIFAR-100 has {SUBCLASSES}. Is this CIFAR-100, and complete?",
                "benchmark.path",
            )
        chosen += members[random_order(SUBCLASSES, rng)[:SOURCE_SUBCLASSES]].tolist()
    return np.array(sorted(chosen), dtype=np.int64)


def _pool(source: ParquetSource, source_fine: Rows, *, inside: bool) -> Pool:
    fine, coarse = source.column("fine_label"), source.column("coarse_label")
    rows = np.flatnonzero(np.isin(fine, source_fine) == inside).astype(np.int64)
    return Pool(source, rows, coarse[rows], strata=fine[rows])


def _subclass_note(names: list[str] | None, source_fine: Rows) -> str:
    shown = [names[i] if names else str(i) for i in source_fine]
    return f"source subclasses: {', '.join(shown)}; all others are the target"
