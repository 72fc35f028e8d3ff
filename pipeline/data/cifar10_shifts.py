"""CIFAR-10 under shifts: CIFAR-10.1, CIFAR-10-C and STL-10, each from the user's own copy.

CIFAR-10.1 (Recht et al. 2018) is a new test set drawn like the first; CIFAR-10-C (Hendrycks and
Dietterich 2019) corrupts the test images at five severities; STL-10 (Coates et al. 2011) shares
nine classes and comes from ImageNet. Training and ID test images are CIFAR-10's. The sets come in
three formats, so copies are told by their pixels.
"""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.data.arrays import ArraySource
from pipeline.data.assemble import FileBenchmarkOptions, Pool, Rules, assemble
from pipeline.data.locate import require_file, require_folder, require_shards
from pipeline.data.parquet import ParquetSource
from pipeline.data.pixels import pixel_digests
from pipeline.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessOptions, over_default
from pipeline.data.split import Benchmark, Rows
from pipeline.types import InputError

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
STL10_CLASSES = (
    *("airplane", "bird", "automobile", "cat", "deer"),
    *("dog", "horse", "monkey", "ship", "truck"),
)
"""In STL-10's order, which counts from 1; monkeys are left out, and it has no frogs."""

EXPECTED = "CIFAR-10 in Parquet: train-*.parquet and test-*.parquet with the columns image, label"
WHERE_TO_GET = "https://huggingface.co/datasets/uoft-cs/cifar10"
CIFAR10_1 = "https://github.com/modestyachts/CIFAR-10.1 (folder datasets)"
CIFAR10_C = "https://zenodo.org/records/2535967"
STL10 = "https://cs.stanford.edu/~acoates/stl10 (stl10_binary.tar.gz)"

SEVERITY_ROWS = 10_000
"""Rows of one severity in a CIFAR-10-C file, in the order of the severities."""

PREPROCESS = PreprocessOptions(resize=32, crop=32, mean=IMAGENET_MEAN, std=IMAGENET_STD)


class Cifar10ShiftsOptions(FileBenchmarkOptions):
    """CIFAR-10 for training, and one or more of its shifts for OOD tests."""

    kind: Literal["cifar10_shifts"] = "cifar10_shifts"
    path: str
    """Folder with CIFAR-10 in Parquet."""
    cifar10_1: str | None = None
    """Folder with cifar10.1_v6_data.npy and cifar10.1_v6_labels.npy."""
    cifar10_c: str | None = None
    """Folder with CIFAR-10-C's labels.npy and a CORRUPTION.npy for each corruption."""
    corruptions: tuple[str, ...] = ()
    """Corruptions by their files' names, such as gaussian_noise; each becomes an OOD split."""
    severity: int = Field(default=3, ge=1, le=5)
    """Severity of the corruptions."""
    stl10: str | None = None
    """Folder with STL-10's test_X.bin and test_y.bin."""
    duplicates: Literal["stop", "drop"] = "drop"
    """Copies across splits stop the run, or stay only in the split that is tested on."""
    preprocess: Annotated[PreprocessOptions, over_default(PREPROCESS)] = PREPROCESS
    """Preprocessing; the default is that of the CIFAR-10 ResNets of He et al.'s design."""

    @model_validator(mode="after")
    def _a_shift_at_least(self) -> Self:
        if not (self.cifar10_1 or self.cifar10_c or self.stl10):
            raise ValueError("give one or more of cifar10_1, cifar10_c and stl10")
        if bool(self.cifar10_c) != bool(self.corruptions):
            raise ValueError("cifar10_c and corruptions go together")
        return self


@dataclass(frozen=True)
class NpyImages:
    """Some rows of a ``.npy`` file of images (n, h, w, c), mapped into memory."""

    path: Path
    start: int = 0
    count: int | None = None

    def read(self) -> NDArray[Any]:
        """uint8 (n, h, w, c)"""
        stop = None if self.count is None else self.start + self.count
        images: NDArray[Any] = _loaded(self.path)[self.start : stop]
        return images


@dataclass(frozen=True)
class Stl10Images:
    """STL-10's binary images: 3 × 96 × 96 bytes each, columns before rows."""

    path: Path

    def read(self) -> NDArray[Any]:
        """uint8 (n, 96, 96, 3)"""
        size = self.path.stat().st_size
        if size == 0 or size % (3 * 96 * 96):  # an empty file cannot be mapped
            raise InputError(
                f"{self.path} is cut: its {size} bytes are no whole number of 96×96 images. "
                "Complete the download.",
                "benchmark.stl10",
            )
        raw = np.memmap(self.path, dtype=np.uint8, mode="r")
        return raw.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)


def build(options: Cifar10ShiftsOptions) -> Benchmark:
    """Splits ``train``, ``val``, ``id_test``, and an ``ood_…`` for every shift given."""
    folder = require_folder(options.path, EXPECTED, WHERE_TO_GET)
    pools = {}
    for split, prefix in (("train", "train"), ("id_test", "test")):
        source = ParquetSource.open(require_shards(folder, prefix, EXPECTED, WHERE_TO_GET))
        labels = source.column("label")
        pools[split] = Pool(source, np.arange(len(labels), dtype=np.int64), labels, labels)
    if options.cifar10_1 is not None:
        pools["ood_cifar10_1"] = _cifar10_1(options.cifar10_1)
    if options.stl10 is not None:
        pools["ood_stl10"] = _stl10(options.stl10)
    for corruption in options.corruptions if options.cifar10_c else ():
        pools[f"ood_{corruption}"] = _corrupted(options, corruption)
    return assemble("cifar10_shifts", CLASSES, pools, Rules.of(options), contents=pixel_digests)


def _cifar10_1(path: str) -> Pool:
    folder = require_folder(path, "CIFAR-10.1", CIFAR10_1, "benchmark.cifar10_1")
    images, labels = (
        require_file(folder / f"cifar10.1_v6_{part}.npy", "CIFAR-10.1", "benchmark.cifar10_1")
        for part in ("data", "labels")
    )
    numbers = _whole_numbers(_loaded(labels), labels, "benchmark.cifar10_1")
    return _pool(NpyImages(images), "cifar10.1", numbers, images)


def _corrupted(options: Cifar10ShiftsOptions, corruption: str) -> Pool:
    assert options.cifar10_c is not None, "corruptions go with their folder"
    where = "benchmark.cifar10_c"
    folder = require_folder(options.cifar10_c, "CIFAR-10-C", CIFAR10_C, where)
    found = sorted(path.stem for path in folder.glob("*.npy") if path.stem != "labels")
    if corruption not in found:
        raise InputError(
            f"{folder} has no {corruption}.npy; it has {', '.join(found) or 'none'}.",
            "benchmark.corruptions",
        )
    file = folder / f"{corruption}.npy"
    labels_file = require_file(folder / "labels.npy", "CIFAR-10-C's labels", where)
    labels = _whole_numbers(_loaded(labels_file), labels_file, where)
    if len(labels) != 5 * SEVERITY_ROWS or len(_loaded(file)) != len(labels):
        raise InputError(f"{file} and labels.npy must have {5 * SEVERITY_ROWS} rows each.", where)
    start = (options.severity - 1) * SEVERITY_ROWS
    rows = slice(start, start + SEVERITY_ROWS)
    images = NpyImages(file, start, SEVERITY_ROWS)
    pool = _pool(images, f"{corruption}_{options.severity}", labels[rows], file)
    # A corruption may leave an image as it is, and two may agree: no copies by mistake.
    return replace(pool, derived_from="id_test")


def _stl10(path: str) -> Pool:
    where = "benchmark.stl10"
    folder = require_folder(path, "STL-10's binary files", STL10, where)
    images, labels = (
        require_file(folder / name, "a binary file of STL-10", where)
        for name in ("test_X.bin", "test_y.bin")
    )
    theirs = np.fromfile(labels, dtype=np.uint8).astype(np.int64) - 1
    if not ((theirs >= 0) & (theirs < len(STL10_CLASSES))).all():
        raise InputError(f"{labels} holds labels outside 1 … {len(STL10_CLASSES)}.", where)
    ours: Rows = np.array([CLASSES.index(n) if n in CLASSES else -1 for n in STL10_CLASSES])[theirs]
    pool = _pool(Stl10Images(images), "stl10", ours, images)
    return pool.take(np.flatnonzero(ours >= 0))


def _whole_numbers(labels: NDArray[Any], file: Path, where: str) -> Rows:
    """Labels as int64 (n,); floating-point ones where they are whole numbers."""
    whole = labels.dtype.kind in "iu" or (
        labels.dtype.kind == "f" and bool((np.isfinite(labels) & (labels % 1 == 0)).all())
    )
    if labels.ndim != 1 or not whole:
        raise InputError(
            f"{file} must hold the class of each image, a whole number 0 … {len(CLASSES) - 1}; "
            f"found {labels.dtype} {labels.shape}.",
            where,
        )
    return labels.astype(np.int64)


def _pool(images: NpyImages | Stl10Images, name: str, labels: Rows, file: Path) -> Pool:
    source = ArraySource(images, name)
    if len(source) != len(labels):
        raise InputError(f"{file} has {len(source)} images, and there are {len(labels)} labels.")
    return Pool(source, np.arange(len(labels), dtype=np.int64), labels, labels)


def _loaded(path: Path) -> NDArray[Any]:
    return _mapped(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _mapped(path: Path, modified: int) -> NDArray[Any]:
    del modified  # part of the key only: a changed file is read again
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no NumPy array: {error}") from None
    return array
