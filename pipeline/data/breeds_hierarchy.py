"""The rule by which BREEDS draws superclasses, and source and target subclasses, from a hierarchy.

Santurkar, Tsipras and Mądry 2021, "BREEDS: Benchmarks for Subpopulation Shift", section 4 and
appendix A. A superclass is a node at a given depth (its longest path from the root) with enough
ImageNet classes below it; half of those that are drawn are the source, half the target:

- ``rand``: drawn at random, one generator for all superclasses in the order of their ids;
- ``good``: every branch below the superclass is shared out, so that source and target are alike;
- ``bad``: whole branches go to one side, so that they are unlike.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from pipeline.types import InputError

FILES = ("dataset_class_info.json", "class_hierarchy.txt", "node_names.txt")
ROOT = "n00001740"
SEED = 2
"""Of the published splits."""

SplitKind = Literal["rand", "good", "bad"]
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Superclass:
    """A class of the task: a node of the hierarchy, its source and its target subclasses."""

    wnid: str
    name: str
    source: list[str]
    target: list[str]


@dataclass(frozen=True)
class Hierarchy:
    """ImageNet's classes below their ancestors."""

    children: Mapping[str, tuple[str, ...]]
    """Node → what is directly below it, sorted; only nodes with ImageNet classes below them."""
    leaves: frozenset[str]
    """ImageNet's classes."""
    names: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> "Hierarchy":
        """The hierarchy in a folder of the authors' three files."""
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise InputError(f"{folder} lacks {', '.join(missing)}.", "benchmark.hierarchy")
        classes, edges, names = (folder / name for name in FILES)
        leaves = frozenset(_parsed(classes, _imagenet_ids, 'entries [number, "wnid", "name"]'))
        pairs = _parsed(edges, _pairs, "lines of two ids, parent and child")
        named = dict(_parsed(names, _named, "lines of an id, a tab and a name"))
        return cls(_above(leaves, pairs), leaves, named)

    @cached_property
    def depths(self) -> Mapping[str, int]:
        """Length of the longest path from the root to each node below it."""
        depths: dict[str, int] = {}
        level = {ROOT}
        for depth in range(len(self.children) + 2):
            depths |= dict.fromkeys(level, depth)
            level = {child for node in level for child in self.children.get(node, ())}
            if not level:
                return depths
        raise InputError("the hierarchy's edges form a circle.", "benchmark.hierarchy")

    def below(self, node: str) -> frozenset[str]:
        """The node and all nodes below it."""
        found, new = {node}, {node}
        while new:
            new = {child for each in new for child in self.children.get(each, ())} - found
            found |= new
        return frozenset(found)

    def leaves_below(self, node: str) -> list[str]:
        """ImageNet classes at or below a node, sorted; none below another ImageNet class."""
        found, new, seen = {node} & self.leaves, {node}, {node}
        while new:
            reached = {child for each in new for child in self.children.get(each, ())}
            found |= reached & self.leaves
            new = reached - self.leaves - seen
            seen |= new
        return sorted(found)

    def branches(self, node: str) -> list[list[str]]:
        """ImageNet classes of each branch under a node, the largest branch first.

        Nodes with a single child are passed through.
        """
        children = self.children.get(node, ())
        while len(children) == 1:
            children = self.children.get(children[0], ())
        return sorted((self.leaves_below(child) for child in children), key=len, reverse=True)


def superclasses(
    hierarchy: Hierarchy, *, level: int, size: int, split: SplitKind, ancestor: str | None = None
) -> list[Superclass]:
    """The nodes ``level`` edges below the root with ``size`` ImageNet classes or more.

    Half of the ``size`` that are drawn of each are its source, the others its target.
    """
    inside = hierarchy.below(ancestor or ROOT)
    nodes = sorted(n for n, depth in hierarchy.depths.items() if depth == level and n in inside)
    rng = np.random.RandomState(SEED)  # The published splits are draws of this generator.
    found = []
    for node in nodes:
        if len(hierarchy.leaves_below(node)) >= size:
            sides = DRAWS[split](hierarchy.branches(node), size // 2, rng)
            found.append(Superclass(node, hierarchy.names.get(node, node), *sides))
    return found


Sides = tuple[list[str], list[str]]


def _at_random(branches: Sequence[Sequence[str]], half: int, rng: np.random.RandomState) -> Sides:
    # A class below two branches counts twice, as it does for the authors.
    leaves = sorted(leaf for branch in branches for leaf in branch)
    drawn = [str(leaf) for leaf in rng.choice(leaves, 2 * half, replace=False)]
    return drawn[:half], drawn[half:]


def _alike(branches: Sequence[Sequence[str]], half: int, rng: np.random.RandomState) -> Sides:
    """Each branch is shared between the sides; a branch of one class goes to the source first."""
    del rng  # nothing is drawn
    source: list[str] = []
    target: list[str] = []
    for branch in branches:
        room = half - len(source), half - len(target)
        cut = min(len(branch) // 2, room[0])
        if len(branch) == 1:
            cut = 1 if room[0] > 0 else 0
        source += branch[:cut] if room[0] > 0 else []
        target += branch[cut : cut + room[1]] if room[1] > 0 else []
    return source, target


def _unlike(branches: Sequence[Sequence[str]], half: int, rng: np.random.RandomState) -> Sides:
    """Whole branches fill the side that has fewer; what does not fit tops up in the end."""
    del rng  # nothing is drawn
    sides: Sides = ([], [])
    spare: list[str] = []
    for branch in branches:
        smaller = 0 if len(sides[0]) <= len(sides[1]) else 1
        room = half - len(sides[smaller])
        if room > 0:
            sides[smaller].extend(branch[:room])
            spare += branch[room:]
    for side in sides:
        short = half - len(side)
        side += spare[:short]
    return sides


DRAWS = {"rand": _at_random, "good": _alike, "bad": _unlike}


def _above(leaves: frozenset[str], pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Node → children, among the ancestors of ImageNet classes alone."""
    parents: dict[str, set[str]] = defaultdict(set)
    for parent, child in pairs:
        parents[child].add(parent)
    children: dict[str, set[str]] = defaultdict(set)
    new, seen = set(leaves), set(leaves)
    while new:
        for node in new:
            for parent in parents[node]:
                children[parent].add(node)
        new = {parent for node in new for parent in parents[node]} - seen
        seen |= new
    return {node: tuple(sorted(below)) for node, below in children.items()}


def _parsed(path: Path, parse: Callable[[str], list[Entry]], expected: str) -> list[Entry]:
    """What ``parse`` finds in a file; refused with the file's name where that is nothing."""
    try:
        found = parse(path.read_text())
    except (OSError, ValueError, IndexError, TypeError, KeyError) as error:
        raise InputError(
            f"cannot read {path}: {error}. It should hold {expected}.", "benchmark.hierarchy"
        ) from None
    if not found:
        raise InputError(
            f"{path} holds no entry. It should hold {expected}, as the authors' does.",
            "benchmark.hierarchy",
        )
    return found


def _imagenet_ids(text: str) -> list[str]:
    entries = json.loads(text)
    if not isinstance(entries, list):
        raise ValueError(f"a list was expected, found {type(entries).__name__}")
    return [_imagenet_id(entry) for entry in entries]


def _imagenet_id(entry: Any) -> str:
    # A string has an entry 1 too, its second letter.
    if not (isinstance(entry, list) and len(entry) > 1 and isinstance(entry[1], str)):
        raise ValueError(f"found the entry {entry!r}")
    return entry[1]


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) != 2:
            raise ValueError(f"line {number} has {len(words)} words")
        pairs.append((words[0], words[1]))
    return pairs


def _named(text: str) -> list[tuple[str, str]]:
    lines = (line.split("\t") for line in text.splitlines() if "\t" in line)
    return [(words[0], words[1]) for words in lines]
