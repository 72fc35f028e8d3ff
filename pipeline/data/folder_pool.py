"""The candidates of a split whose classes are folders of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.data.assemble import Pool
from pipeline.data.image_folder import FolderSource, image_files
from pipeline.types import InputError


def folder_pool(
    root: Path,
    members: Mapping[str, Sequence[str]],
    split: str,
    where: str = "benchmark.path",
) -> Pool:
    """All images in each class's folders; a class's number is its position in ``members``.

    ``members`` maps class names to folders relative to ``root``; order and hold-out are
    stratified by folder. Raises ``InputError`` naming folders that are missing or empty.
    """
    folders_with_labels = [(f, i) for i, folders in enumerate(members.values()) for f in folders]
    _refuse_missing(root, [folder for folder, _ in folders_with_labels], where)
    files: list[str] = []
    labels: list[int] = []
    strata: list[int] = []
    empty: list[str] = []
    for stratum, (folder, label) in enumerate(folders_with_labels):
        found = image_files(root / folder, root)
        if not found:
            empty.append(folder)
        files += found
        labels += [label] * len(found)
        strata += [stratum] * len(found)
    if empty:
        raise InputError(
            f"split {split}: no images in {_listed(empty)} under {root}. Every class folder needs "
            "some.",
            where,
        )
    rows = np.arange(len(files), dtype=np.int64)
    return Pool(
        FolderSource(root, tuple(files)),
        rows,
        np.array(labels, dtype=np.int64),
        np.array(strata, dtype=np.int64),
    )


def _refuse_missing(root: Path, folders: Sequence[str], where: str) -> None:
    missing = [folder for folder in folders if not (root / folder).is_dir()]
    if missing:
        raise InputError(
            f"{root} lacks {len(missing)} of {len(folders)} class folders: {_listed(missing)}.",
            where,
        )


def _listed(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
