"""Entity-13, Entity-30, Living-17 and Non-Living-26 of BREEDS, from the authors' hierarchy files.

Santurkar, Tsipras and Mądry 2021, "BREEDS: Benchmarks for Subpopulation Shift", table 1.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pipeline.data.breeds_hierarchy import FILES, Hierarchy, Superclass, superclasses
from pipeline.data.imagenet_subclasses import SubclassShiftOptions, subclass_shift
from pipeline.data.locate import require_folder
from pipeline.data.split import Benchmark

Task = Literal["entity13", "entity30", "living17", "nonliving26"]

RULES: dict[str, tuple[int, int, str | None]] = {
    "entity13": (3, 20, None),
    "entity30": (4, 8, None),
    "living17": (5, 4, "n00004258"),
    "nonliving26": (5, 4, "n00021939"),
}
"""Task → depth of its superclasses, subclasses of each, and the node that all lie below."""

EXPECTED = f"the hierarchy's files {', '.join(FILES)}"
WHERE_TO_GET = (
    "https://github.com/MadryLab/BREEDS-Benchmarks, folder imagenet_class_hierarchy/modified"
)


class BreedsOptions(SubclassShiftOptions):
    """A BREEDS task from an ImageNet folder and the authors' hierarchy."""

    kind: Literal["breeds"] = "breeds"
    task: Task
    """Which of the four tasks."""
    hierarchy: str
    """Folder with the authors' three files."""


def build(options: BreedsOptions) -> Benchmark:
    """Splits ``train`` and ``val`` (none with ``holdout: 0``), ``id_test``, ``ood_test``."""
    folder = require_folder(options.hierarchy, EXPECTED, WHERE_TO_GET, "benchmark.hierarchy")
    level, size, ancestor = RULES[options.task]
    found = superclasses(
        Hierarchy.read(folder), level=level, size=size, split=options.split, ancestor=ancestor
    )
    names = class_names(found)
    source = {name: each.source for name, each in zip(names, found, strict=True)}
    target = {name: each.target for name, each in zip(names, found, strict=True)}
    return subclass_shift(options.task, source, target, options)


def class_names(found: Sequence[Superclass]) -> list[str]:
    """Each superclass's first name, with its id where two share one."""
    names = [each.name.split(",")[0] for each in found]
    count = Counter(names)
    return [
        f"{name} ({each.wnid})" if count[name] > 1 else name
        for name, each in zip(names, found, strict=True)
    ]
