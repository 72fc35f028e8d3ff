"""Superclasses of ImageNet whose subclasses differ between ID and OOD, from an ImageNet folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pipeline.data.assemble import FileBenchmarkOptions, Rules, assemble
from pipeline.data.folder_pool import folder_pool
from pipeline.data.image_folder import class_folders, is_image
from pipeline.data.locate import require_folder
from pipeline.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, PreprocessOptions, over_default
from pipeline.data.split import Benchmark
from pipeline.types import InputError

EXPECTED = "ImageNet (ILSVRC 2012): train/<wnid>/*.JPEG and val/<wnid>/*.JPEG"
WHERE_TO_GET = "https://image-net.org/download.php (an account is needed)"

PREPROCESS = PreprocessOptions(resize=256, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)


class SubclassShiftOptions(FileBenchmarkOptions):
    """What benchmarks of ImageNet's superclasses share."""

    path: str
    """Folder with ImageNet's train/<wnid> and val/<wnid>; other classes may be absent."""
    split: Literal["rand", "good", "bad"] = "rand"
    """How BREEDS drew source and target: at random (the papers'), alike (good), unlike (bad)."""
    duplicates: Literal["stop", "drop"] = "drop"
    """Copies across splits stop the run, or stay only in the split that is tested on."""
    preprocess: Annotated[PreprocessOptions, over_default(PREPROCESS)] = PREPROCESS
    """Preprocessing; the default is ImageNet's usual one at evaluation."""


def subclass_shift(
    name: str,
    source: Mapping[str, Sequence[str]],
    target: Mapping[str, Sequence[str]],
    options: SubclassShiftOptions,
    *,
    sizes: Mapping[str, int] | None = None,
) -> Benchmark:
    """Splits ``train`` and ``val`` (none with ``holdout: 0``), ``id_test``, ``ood_test``.

    ``source`` and ``target`` map the same superclasses to ImageNet ids; training images are the
    source's of the train folder, test images those of the val folder. Splits of other ``sizes``
    are noted.
    """
    root = require_folder(options.path, EXPECTED, WHERE_TO_GET)
    for part in ("train", "val"):
        require_folder(root / part, f"a folder for each class, as in {EXPECTED}", WHERE_TO_GET)
    _refuse_flat(root / "val")
    pools = {
        "train": folder_pool(root, _folders("train", source), "train"),
        "id_test": folder_pool(root, _folders("val", source), "id_test"),
        "ood_test": folder_pool(root, _folders("val", target), "ood_test"),
    }
    notes = [
        f"{split}: {len(pools[split].rows)} images found, {name} has {size}"
        for split, size in (sizes or {}).items()
        if len(pools[split].rows) != size
    ]
    named = name if options.split == "rand" else f"{name}-{options.split}"
    return assemble(named, list(source), pools, Rules.of(options), notes=notes)


def _folders(part: str, members: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {name: [f"{part}/{wnid}" for wnid in wnids] for name, wnids in members.items()}


def _refuse_flat(val: Path) -> None:
    if not class_folders(val) and any(is_image(entry.name) for entry in val.iterdir()):
        raise InputError(
            f"{val} holds images without class folders, as ImageNet is downloaded. Sort them into "
            "val/<wnid> first; https://github.com/soumith/imagenetloader.torch (valprep.sh) does.",
            "benchmark.path",
        )
