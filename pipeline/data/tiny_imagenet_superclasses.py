"""A superclass shift on real photographs of 64×64 pixels: 14 superclasses of Tiny-ImageNet.

In the manner of BREEDS, each superclass has two source and two target ImageNet classes: 4,200
training images and 1,400 of ``id_test`` from the source, 1,400 of ``ood_test`` from the target.
"""

from typing import Annotated, Literal

import numpy as np

from pipeline.data.assemble import FileBenchmarkOptions, Fraction, Pool, Rules, assemble
from pipeline.data.locate import require_folder, require_shards
from pipeline.data.parquet import ParquetSource
from pipeline.data.preprocess import PreprocessOptions, over_default
from pipeline.data.split import Benchmark
from pipeline.types import InputError

EXPECTED = (
    "the superclass subset of Tiny-ImageNet in Parquet: train-*, id_test-* and ood_test-*.parquet "
    "with the columns image, label and wnid"
)
WHERE_TO_GET = "the README's section 'Data' says how it is made from Tiny-ImageNet"

PREPROCESS = PreprocessOptions(scale=255.0, mean=(123.68, 116.779, 103.939))


class TinyImagenetSuperclassesOptions(FileBenchmarkOptions):
    """14 superclasses of Tiny-ImageNet, two source and two target subclasses each."""

    kind: Literal["tiny_imagenet_superclasses"] = "tiny_imagenet_superclasses"
    path: str
    """Folder with the Parquet files."""
    holdout: Fraction = 0.2
    """Share of the 4,200 training images held out as `val`, stratified; 0 for none."""
    duplicates: Literal["stop", "drop"] = "drop"
    """Copies across splits stop the run, or stay only in the split that is tested on."""
    preprocess: Annotated[PreprocessOptions, over_default(PREPROCESS)] = PREPROCESS
    """Preprocessing; by default Caffe's (bytes minus the mean), as SqueezeNet's weights need."""


def build(options: TinyImagenetSuperclassesOptions) -> Benchmark:
    """Splits ``train``, ``val`` (none with ``holdout: 0``), ``id_test``, ``ood_test``."""
    folder = require_folder(options.path, EXPECTED, WHERE_TO_GET)
    sources = {
        split: ParquetSource.open(require_shards(folder, split, EXPECTED, WHERE_TO_GET))
        for split in ("train", "id_test", "ood_test")
    }
    classes = sources["train"].class_names("label")
    for split, source in sources.items():
        names = source.class_names("label")
        if names is None or names != classes:
            raise InputError(
                f"the schema metadata of {split}-*.parquet names the classes {names}, that of "
                f"train-*.parquet {classes}; both must name the same.",
                "benchmark.path",
            )
    pools = {split: _pool(source) for split, source in sources.items()}
    return assemble("tiny_imagenet_superclasses", classes or [], pools, Rules.of(options))


def _pool(source: ParquetSource) -> Pool:
    labels = source.column("label")
    wnids = np.unique(source.column("wnid").astype(str), return_inverse=True)[1]
    return Pool(source, np.arange(len(labels), dtype=np.int64), labels, wnids.astype(np.int64))
