"""Any shift between folders of images: one folder a split, in it one folder a class."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path, PurePath
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from pipeline.data.assemble import FileBenchmarkOptions, Rules, assemble
from pipeline.data.folder_pool import folder_pool
from pipeline.data.image_folder import class_folders, is_image
from pipeline.data.locate import require_folder
from pipeline.data.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PreprocessOptions,
    over_default,
)
from pipeline.data.split import Benchmark
from pipeline.types import InputError

EXPECTED = "a folder of images for each class"
WHERE_TO_GET = "these are your own images; set the path to them"

PREPROCESS = PreprocessOptions(resize=256, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)

OodName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]


class ImageFoldersOptions(FileBenchmarkOptions):
    """Your own image folders: train, ID test, and any number of OOD tests."""

    kind: Literal["image_folders"] = "image_folders"
    train: str
    """Folder of the training images, one folder a class."""
    id_test: str
    """Folder of the ID test images."""
    ood: dict[OodName, str] = Field(default_factory=dict)
    """Folders of OOD test images by name; `test` becomes the split `ood_test`, the main one."""
    val: str | None = None
    """Folder of the validation images; null holds out a share of the training images."""
    classes: dict[str, tuple[str, ...]] | None = None
    """Class name → its folders, where several folders make a class or differ between splits."""
    preprocess: Annotated[PreprocessOptions, over_default(PREPROCESS)] = PREPROCESS
    """Preprocessing; the default is ImageNet's usual one at evaluation."""


def build(options: ImageFoldersOptions) -> Benchmark:
    """Splits ``train``, ``val``, ``id_test`` and ``ood_NAME`` for each OOD folder."""
    paths = {"train": options.train, "val": options.val, "id_test": options.id_test}
    keys = {split: split for split in paths} | {f"ood_{n}": f"ood.{n}" for n in options.ood}
    paths |= {f"ood_{name}": path for name, path in options.ood.items()}
    roots = {
        split: require_folder(path, EXPECTED, WHERE_TO_GET, f"benchmark.{keys[split]}")
        for split, path in paths.items()
        if path is not None
    }
    classes: dict[str, tuple[str, ...]] = dict(options.classes or {})
    _refuse_shared_folders(classes)
    if options.classes is None:
        classes = {name: (name,) for name in class_folders(roots["train"])}
        _refuse_no_classes(roots["train"], classes)
        for split, root in roots.items():
            _refuse_other_classes(root, split, list(classes), f"benchmark.{keys[split]}")
    pools = {
        split: folder_pool(root, _present(root, classes), split, f"benchmark.{keys[split]}")
        for split, root in roots.items()
    }
    return assemble("image_folders", list(classes), pools, Rules.of(options))


def _refuse_shared_folders(classes: Mapping[str, Sequence[str]]) -> None:
    """A folder, or one inside it, of two classes would train its images under both labels."""
    listed = [(name, PurePath(folder)) for name, folders in classes.items() for folder in folders]
    for (a, first), (b, second) in combinations(listed, 2):
        if first.is_relative_to(second) or second.is_relative_to(first):
            shown = f"{first}" if first == second else f"{first} and {second}, one in the other,"
            belongs = f"to {a} twice" if a == b else f"to two classes, {a} and {b}"
            raise InputError(
                f"folder {shown} belongs {belongs}. List every folder once.", "benchmark.classes"
            )


def _refuse_no_classes(train: Path, classes: Mapping[str, Sequence[str]]) -> None:
    if not classes:
        loose = sum(is_image(entry.name) for entry in train.iterdir())
        raise InputError(
            f"{train} has no class folders ({loose} image(s) lie directly in it). It should hold "
            f"{EXPECTED}.",
            "benchmark.train",
        )


def _refuse_other_classes(root: Path, split: str, classes: list[str], where: str) -> None:
    found = class_folders(root)
    missing = sorted(set(classes) - set(found))
    unknown = sorted(set(found) - set(classes))
    if missing or unknown:
        differing = [f"missing {', '.join(missing)}"] if missing else []
        differing += [f"not among the training classes {', '.join(unknown)}"] if unknown else []
        raise InputError(
            f"the class folders of {split} ({root}) differ from those of train: "
            f"{'; '.join(differing)}. Rename them, or say with benchmark.classes which folders "
            "belong to which class.",
            where,
        )


def _present(root: Path, classes: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Each class's folders that are in ``root``; all of them for a class that has none there.

    Source and target subclasses live in different splits, so a split need not have every folder
    of a class, but it must have one: :func:`folder_pool` names what is missing.
    """
    present = {
        name: [folder for folder in folders if (root / folder).is_dir()]
        for name, folders in classes.items()
    }
    return {name: found or list(classes[name]) for name, found in present.items()}
