"""Entity-13, Entity-30, Living-17 and Non-Living-26 of BREEDS, from the authors' hierarchy files.

Santurkar, Tsipras and Mądry 2021, "BREEDS: Benchmarks for Subpopulation Shift", table 1.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pipeline.data.breeds_hierarchy import FILES, Hierarchy, Superclass, superclasses
from pipeline.data.imagenet_subclasses import SubclassShiftOptions, subclass_shift
from pipeline.data.locate import require_folder
from pipeline.data.split import Benchmark
from pipeline.types import InputError

Task = Literal["entity13", "entity30", "living17", "nonliving26"]

RULES: dict[str, tuple[int, int, int, str | None]] = {
    "entity13": (13, 3, 20, None),
    "entity30": (30, 4, 8, None),
    "living17": (17, 5, 4, "n00004258"),
    "nonliving26": (26, 5, 4, "n00021939"),
}
"""Task → number of its superclasses, their depth, subclasses of each, the node all lie below."""

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
    count, level, size, ancestor = RULES[options.task]
    found = superclasses(
        Hierarchy.read(folder), level=level, size=size, split=options.split, ancestor=ancestor
    )
    _refuse_other_hierarchy(folder, options.task, found, count)
    names = class_names(found)
    source = {name: each.source for name, each in zip(names, found, strict=True)}
    target = {name: each.target for name, each in zip(names, found, strict=True)}
    return subclass_shift(options.task, source, target, options)


def _refuse_other_hierarchy(
    folder: Path, task: str, found: Sequence[Superclass], count: int
) -> None:
    """The authors publish a second hierarchy, WordNet's own, whose files have the same names."""
    targets = {wnid for each in found for wnid in each.target}
    both = sorted({wnid for each in found for wnid in each.source} & targets)
    wrong = []
    if len(found) != count:
        wrong.append(f"it gives {task} {len(found)} superclasses, the paper has {count}")
    if both:
        wrong.append(f"{len(both)} ImageNet class(es) are source and target, such as {both[0]}")
    if wrong:
        raise InputError(
            f"{folder} is not the hierarchy of the paper: {'; '.join(wrong)}. The paper uses the "
            f"files in the folder `modified`: {WHERE_TO_GET}",
            "benchmark.hierarchy",
        )


def class_names(found: Sequence[Superclass]) -> list[str]:
    """Each superclass's first name, with its id where two share one."""
    names = [each.name.split(",")[0] for each in found]
    count = Counter(names)
    return [
        f"{name} ({each.wnid})" if count[name] > 1 else name
        for name, each in zip(names, found, strict=True)
    ]
