"""Living-17 of BREEDS: 17 superclasses of ImageNet whose subclasses differ between ID and OOD.

Santurkar, Tsipras and Mądry 2021, "BREEDS: Benchmarks for Subpopulation Shift". Each superclass
has two source and two target ImageNet classes; the lists in ``living17.json`` come from the
authors' code and hierarchy. Training images are the source classes' of ImageNet's train folder
(44,200), ``id_test`` and ``ood_test`` the source and target classes' of its val folder (1,700
each).
"""

import functools
import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

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

EXPECTED = "ImageNet (ILSVRC 2012): train/<wnid>/*.JPEG and val/<wnid>/*.JPEG"
WHERE_TO_GET = "https://image-net.org/download.php (an account is needed)"
FULL_SIZES = {"train": 44_200, "id_test": 1_700, "ood_test": 1_700}

PREPROCESS = PreprocessOptions(resize=256, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)

Domain = Literal["source", "target"]


class Living17Options(FileBenchmarkOptions):
    """Living-17 (BREEDS) from an ImageNet folder."""

    kind: Literal["living17"] = "living17"
    path: str
    """Folder with ImageNet's train/<wnid> and val/<wnid>; other classes may be absent."""
    split: Literal["rand", "good", "bad"] = "rand"
    """How BREEDS drew source and target: at random (the papers'), alike (good), unlike (bad)."""
    duplicates: Literal["stop", "drop"] = "drop"
    """Copies across splits stop the run, or stay only in the split that is tested on."""
    preprocess: Annotated[PreprocessOptions, over_default(PREPROCESS)] = PREPROCESS
    """Preprocessing; the default is ImageNet's usual one at evaluation."""


def build(options: Living17Options) -> Benchmark:
    """Splits ``train`` and ``val`` (none with ``holdout: 0``), ``id_test``, ``ood_test``."""
    root = require_folder(options.path, EXPECTED, WHERE_TO_GET)
    for part in ("train", "val"):
        require_folder(root / part, f"a folder for each class, as in {EXPECTED}", WHERE_TO_GET)
    _refuse_flat(root / "val")
    pools = {
        "train": folder_pool(root, _folders("train", options.split, "source"), "train"),
        "id_test": folder_pool(root, _folders("val", options.split, "source"), "id_test"),
        "ood_test": folder_pool(root, _folders("val", options.split, "target"), "ood_test"),
    }
    notes = [
        f"{split}: {len(pool.rows)} images found, Living-17 has {FULL_SIZES[split]}"
        for split, pool in pools.items()
        if len(pool.rows) != FULL_SIZES[split]
    ]
    name = "living17" if options.split == "rand" else f"living17-{options.split}"
    return assemble(name, superclasses(), pools, Rules.of(options), notes=notes)


def superclasses() -> list[str]:
    """Names of the 17 classes, in label order."""
    return [superclass["name"] for superclass in _published()["superclasses"]]


def subclasses(split: str, domain: Domain) -> list[list[str]]:
    """ImageNet ids (wnids) of each superclass's two source or target classes, in label order."""
    return [superclass[domain] for superclass in _published()["splits"][split]]


def _folders(part: str, split: str, domain: Domain) -> dict[str, list[str]]:
    return {
        name: [f"{part}/{wnid}" for wnid in wnids]
        for name, wnids in zip(superclasses(), subclasses(split, domain), strict=True)
    }


@functools.cache
def _published() -> dict[str, Any]:
    text = files("pipeline.data").joinpath("living17.json").read_text()
    published: dict[str, Any] = json.loads(text)
    return published


def _refuse_flat(val: Path) -> None:
    if not class_folders(val) and any(is_image(entry.name) for entry in val.iterdir()):
        raise InputError(
            f"{val} holds images without class folders, as ImageNet is downloaded. Sort them into "
            "val/<wnid> first; https://github.com/soumith/imagenetloader.torch (valprep.sh) does.",
            "benchmark.path",
        )
