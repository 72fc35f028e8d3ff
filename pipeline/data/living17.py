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
from typing import Any, Literal

from pipeline.data.imagenet_subclasses import SubclassShiftOptions, subclass_shift
from pipeline.data.split import Benchmark

FULL_SIZES = {"train": 44_200, "id_test": 1_700, "ood_test": 1_700}

Domain = Literal["source", "target"]


class Living17Options(SubclassShiftOptions):
    """Living-17 (BREEDS) from an ImageNet folder."""

    kind: Literal["living17"] = "living17"


def build(options: Living17Options) -> Benchmark:
    """Splits ``train`` and ``val`` (none with ``holdout: 0``), ``id_test``, ``ood_test``."""
    source, target = (
        dict(zip(superclasses(), subclasses(options.split, domain), strict=True))
        for domain in ("source", "target")
    )
    return subclass_shift("living17", source, target, options, sizes=FULL_SIZES)


def superclasses() -> list[str]:
    """Names of the 17 classes, in label order."""
    return [superclass["name"] for superclass in _published()["superclasses"]]


def subclasses(split: str, domain: Domain) -> list[list[str]]:
    """ImageNet ids (wnids) of each superclass's two source or target classes, in label order."""
    return [superclass[domain] for superclass in _published()["splits"][split]]


@functools.cache
def _published() -> dict[str, Any]:
    text = files("pipeline.data").joinpath("living17.json").read_text()
    published: dict[str, Any] = json.loads(text)
    return published
