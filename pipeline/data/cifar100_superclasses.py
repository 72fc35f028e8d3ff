"""CIFAR-100's 20 superclasses under a subpopulation shift, in the manner of BREEDS.

Of the five subclasses of each superclass three are the source and two the target, drawn by seed.
Training and validation images come from the source's training images, ``id_test`` from the
source's test images, ``ood_test`` from the target's test images: no target image is trained on.
"""

from typing import Literal

import numpy as np

from pipeline.data.assemble import Pool, Rules, assemble
from pipeline.data.cifar100 import Cifar100FileOptions, open_train_and_test
from pipeline.data.order import random_order, stream
from pipeline.data.parquet import ParquetSource
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


class Cifar100SuperclassesOptions(Cifar100FileOptions):
    """CIFAR-100 superclasses: 3 subclasses of each are the source, 2 the target, by seed."""

    kind: Literal["cifar100_superclasses"] = "cifar100_superclasses"


def build(options: Cifar100SuperclassesOptions) -> Benchmark:
    """Splits ``train``, ``val``, ``id_test`` (at most 6,000) and ``ood_test`` (at most 4,000)."""
    train, test = open_train_and_test(options.path)
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
