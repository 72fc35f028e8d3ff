"""A benchmark in one NumPy archive: ``SPLIT_images`` (or ``SPLIT_features``) and ``SPLIT_labels``.

Splits are ``train``, ``val``, ``id_test`` (or ``test``) and ``ood_*``. Whole-number labels are
classes; floating-point ones, (n,) or (n, t), are the targets of a regression.
"""

from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import BadZipFile

import numpy as np
import psutil
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from pipeline.data.arrays import ArchivedArray, ArraySource
from pipeline.data.assemble import HeldOutOptions, Pool, Rules, assemble
from pipeline.data.locate import require_file
from pipeline.data.preprocess import PreprocessOptions, over_default
from pipeline.data.split import Benchmark, Labels
from pipeline.types import InputError

PREPROCESS = PreprocessOptions()
LABELS = "_labels"
ALIASES = {"test": "id_test"}
EXPECTED = (
    "a NumPy archive (.npz) with the arrays train_images (or train_features) and train_labels, "
    "and the same for id_test, ood_test and, if you have it, val"
)


class ArraysOptions(HeldOutOptions):
    """A benchmark in a NumPy archive."""

    kind: Literal["arrays"] = "arrays"
    path: str
    """The .npz file."""
    classes: tuple[str, ...] | None = None
    """Class names in label order; null names them by number."""
    preprocess: Annotated[PreprocessOptions, over_default(PREPROCESS)] = PREPROCESS
    """Preprocessing of images; feature vectors pass unchanged."""


def build(options: ArraysOptions) -> Benchmark:
    """The splits that the archive holds, and ``val`` held out of ``train`` where it has none."""
    path = require_file(options.path, EXPECTED)
    keys = _keys(path)
    names = [key.removesuffix(LABELS) for key in keys if key.endswith(LABELS)]
    unknown = [n for n in names if not _is_split(ALIASES.get(n, n))]
    if "train" not in names or unknown:
        raise InputError(
            f"{path} holds {', '.join(keys)}. It should be {EXPECTED}.", "benchmark.path"
        )
    pools = {ALIASES.get(name, name): _pool(path, name, keys) for name in names}
    labels = pools["train"].labels
    for split, pool in pools.items():
        if pool.labels.dtype != labels.dtype or pool.labels.shape[1:] != labels.shape[1:]:
            raise InputError(
                f"labels of {split} are {pool.labels.dtype} {pool.labels.shape}, those of train "
                f"{labels.dtype} {labels.shape}: one is a classification, or has other targets.",
                "benchmark.path",
            )
    classes = [] if labels.dtype == np.float64 else _class_names(options, labels)
    return assemble(path.stem, classes, pools, Rules.of(options))


def _keys(path: Path) -> list[str]:
    try:
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as archive:
            _refuse_bomb(path, archive)
            return sorted(archive.files)
    except (OSError, BadZipFile) as error:
        raise InputError(f"{path} is no NumPy archive: {error}", "benchmark.path") from None


def _refuse_bomb(path: Path, archive: NpzFile) -> None:
    """An array that no memory holds: kilobytes of a zip file can unfold to terabytes."""
    memory = psutil.virtual_memory().total
    for info in archive.zip.infolist() if archive.zip is not None else ():
        if info.file_size > memory:
            raise InputError(
                f"{info.filename} in {path} unfolds from {info.compress_size:,} to "
                f"{info.file_size:,} bytes; this machine has {memory:,}. The archive is damaged, "
                "or a decompression bomb.",
                "benchmark.path",
            )


def _is_split(name: str) -> bool:
    return name in ("train", "val", "id_test", "pretrain") or name.startswith("ood_")


def _pool(path: Path, name: str, keys: list[str]) -> Pool:
    held = [key for key in (f"{name}_images", f"{name}_features") if key in keys]
    if len(held) != 1:
        raise InputError(
            f"{path} needs one of {name}_images and {name}_features beside {name}{LABELS}; it "
            f"holds {', '.join(keys)}.",
            "benchmark.path",
        )
    array = ArchivedArray(path, held[0])
    source = ArraySource(array, held[0])
    _refuse_nonfinite(array.read(), f"{path}: {held[0]}")
    labels = _labels(ArchivedArray(path, f"{name}{LABELS}").read(), f"{path}: {name}{LABELS}")
    if len(labels) != len(source):
        raise InputError(
            f"{path}: {len(source)} rows in {held[0]}, {len(labels)} in {name}{LABELS}.",
            "benchmark.path",
        )
    strata = labels if labels.dtype == np.int64 else np.zeros(len(labels), dtype=np.int64)
    return Pool(source, np.arange(len(labels), dtype=np.int64), labels, strata)


def _refuse_nonfinite(samples: NDArray[Any], name: str) -> None:
    if samples.dtype.kind != "f":
        return
    bad = np.flatnonzero(~np.isfinite(samples).all(axis=1))
    if len(bad):
        raise InputError(
            f"{name} holds NaN or infinity in {len(bad)} of {len(samples)} rows (first: row "
            f"{bad[0]}). Leave these rows out, or impute.",
            "benchmark.path",
        )


def _labels(labels: NDArray[Any], name: str) -> Labels:
    """int64 (n,) for classes, float64 (n, t) for regression targets."""
    if labels.dtype.kind in "iu" and labels.ndim == 1:
        return labels.astype(np.int64)
    if labels.dtype.kind == "f" and labels.ndim in (1, 2) and np.isfinite(labels).all():
        return labels.astype(np.float64).reshape(len(labels), -1)
    raise InputError(
        f"{name} must be whole numbers (n,) for classes, or finite floats (n,) or (n, t) for "
        f"regression; found {labels.dtype} {labels.shape}.",
        "benchmark.path",
    )


def _class_names(options: ArraysOptions, labels: Labels) -> list[str]:
    if options.classes is not None:
        return list(options.classes)
    return [str(label) for label in range(int(labels.max(initial=-1)) + 1)]
