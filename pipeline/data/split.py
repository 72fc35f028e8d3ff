"""What a benchmark is made of: a source of images, splits of its rows, and the whole.

Rows of a split lie in a seeded random order in which every prefix is stratified
(:func:`pipeline.data.order.stratified_order`), so the first m rows are a fair sample of size m.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.types import InputError

Rows = NDArray[np.int64]
Labels = NDArray[Any]
"""int64 (n,) class numbers, or float64 (n, t) regression targets."""

Sample = Image.Image | NDArray[Any] | str
"""A decoded image, a uint8 array (h, w) or (h, w, c), a float32 feature vector (d,), or a text."""


@runtime_checkable
class Source(Protocol):
    """Samples by row number. Sources are picklable and open their files lazily."""

    def ids(self, rows: Rows) -> list[str]:
        """Names of samples, unique in the source and independent of where it is mounted."""
        ...

    def fingerprints(self, rows: Rows) -> list[str]:
        """SHA-256 of each sample's content; equal content has equal fingerprints."""
        ...

    def image(self, row: int) -> Sample:
        """One sample, decoded. Raises ``UnreadableImageError`` with the file's name."""
        ...


Contents = Callable[[Source, Rows], list[str]]
"""A name for what each of some rows holds: rows of one name are copies."""


def fingerprints(source: Source, rows: Rows) -> list[str]:
    """The source's own: enough where all splits come in one format."""
    return source.fingerprints(rows)


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows of a source with their labels, in the split's own order."""

    name: str
    source: Source
    rows: Rows
    labels: Labels
    groups: Rows | None = None
    """Domain of each row (n,), a position in :attr:`Benchmark.group_names`; None without any."""
    derived_from: str | None = None
    """The split whose samples these are, shifted; the two may then share content."""

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.labels):
            raise ValueError(
                f"split {self.name}: {len(self.rows)} rows, {len(self.labels)} labels."
            )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> list[str]:
        """Names of the samples, in order."""
        return self.source.ids(self.rows)

    def fingerprints(self) -> list[str]:
        """Content hashes of the samples, in order."""
        return self.source.fingerprints(self.rows)

    def digest(self) -> str:
        """SHA-256 of the ordered ids and contents: what features of this split depend on."""
        hasher = hashlib.sha256()
        for name, fingerprint in zip(self.ids, self.fingerprints(), strict=True):
            hasher.update(f"{name}\0{fingerprint}\n".encode())
        return hasher.hexdigest()

    def label_digest(self) -> str:
        """SHA-256 of the ordered labels: fits depend on them, features do not."""
        return hashlib.sha256(np.ascontiguousarray(self.labels).tobytes()).hexdigest()

    def subset(self, positions: slice | Sequence[int] | Rows) -> "Split":
        """The split restricted to some positions (not source rows), in the given order."""
        where = positions if isinstance(positions, slice) else np.asarray(positions, dtype=np.int64)
        return replace(
            self,
            rows=self.rows[where],
            labels=self.labels[where],
            groups=None if self.groups is None else self.groups[where],
        )


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A task under distribution shift: classes, and splits named ``train``, ``val``, ``id_test``,
    ``ood_*`` (``ood_test`` is the main one), and ``pretrain`` where a backbone is trained first.

    ``classes`` is empty for regression. ``pretrain`` has classes of its own.
    """

    name: str
    classes: list[str]
    splits: Mapping[str, Split]
    notes: tuple[str, ...] = ()
    """What the reader of a report must know: what was dropped, how a shift was made."""
    pretrain_classes: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) == 1:
            raise InputError(
                f"{self.name} has one class, {self.classes[0]}; a classification needs two.",
                "benchmark",
            )
        # Classes are those of the training labels: where these are wrong, others look wrong too.
        for split in sorted(self.splits.values(), key=lambda split: split.name != "train"):
            _refuse_empty(split)
            if split.labels.dtype == np.int64:
                classes = self.pretrain_classes if split.name == "pretrain" else self.classes
                _refuse_out_of_range(split, len(classes))
        if self.classes and "train" in self.splits:
            _refuse_missing_classes(self.splits["train"], self.classes)
        elif "train" in self.splits:
            _refuse_constant_targets(self.splits["train"].labels)

    @property
    def ood_splits(self) -> list[str]:
        """Names of the out-of-distribution splits, the main one first."""
        names = [name for name in self.splits if name.startswith("ood_")]
        return sorted(names, key=lambda name: (name != "ood_test", names.index(name)))


def may_share(origins: Mapping[str, str | None], a: str, b: str) -> bool:
    """Whether split ``a`` is derived from ``b``, ``b`` from ``a``, or both from a third."""
    siblings = origins[a] is not None and origins[a] == origins[b]
    return origins[a] == b or origins[b] == a or siblings


def refuse_overlap(splits: Mapping[str, Split], contents: Contents = fingerprints) -> None:
    """Raise ``InputError`` naming samples that lie in two splits at once.

    A split declared as derived from another may share content with it.
    """
    origins = {name: split.derived_from for name, split in splits.items()}
    seen: dict[str, dict[str, str]] = {}
    for name, split in splits.items():
        held = dict(zip(contents(split.source, split.rows), split.ids, strict=True))
        for other, other_held in seen.items():
            if held.keys() & other_held.keys() and not may_share(origins, name, other):
                raise InputError(_overlap_message(other, name, other_held, held), "benchmark")
        seen[name] = held


def _overlap_message(a: str, b: str, in_a: Mapping[str, str], in_b: Mapping[str, str]) -> str:
    shared = sorted(in_a.keys() & in_b.keys(), key=lambda fingerprint: in_a[fingerprint])
    pairs = "; ".join(f"{in_a[f]} is {in_b[f]}" for f in shared[:3])
    more = ", …" if len(shared) > 3 else ""
    return (
        f"splits {a} and {b} share {len(shared)} sample(s): {pairs}{more}. "
        "A sample may lie in one split only: remove the copies, or set duplicates: drop."
    )


def _refuse_empty(split: Split) -> None:
    if len(split) == 0:
        held_out = " Raise benchmark.holdout, or add data." if split.name == "val" else ""
        raise InputError(f"split {split.name} is empty.{held_out}", "benchmark")


def _refuse_out_of_range(split: Split, k: int) -> None:
    outside = np.flatnonzero((split.labels < 0) | (split.labels >= k))
    if len(outside):
        first = int(outside[0])
        raise InputError(
            f"split {split.name}: {len(outside)} label(s) outside 0 … {k - 1}, such as "
            f"{int(split.labels[first])} of {split.subset([first]).ids[0]}. "
            f"The benchmark has {k} classes.",
            "benchmark",
        )


def _refuse_constant_targets(targets: Labels) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        spread = targets.std(axis=0)
    if not (np.isfinite(spread) & (spread > 0)).all():
        raise InputError(
            f"the training targets' standard deviation is {spread.tolist()}; a regression needs "
            "targets that vary, and whose squares are finite.",
            "benchmark",
        )


def _refuse_missing_classes(train: Split, classes: Sequence[str]) -> None:
    counts = np.bincount(train.labels, minlength=len(classes))
    missing = [classes[int(i)] for i in np.flatnonzero(counts == 0)]
    if not missing:
        return
    shown = ", ".join(missing[:10]) + (", …" if len(missing) > 10 else "")
    if len(train) < len(classes):
        raise InputError(
            f"split train has {len(train)} sample(s) for {len(classes)} classes; it needs at least "
            f"one of each. Without any: {shown}. Raise the limit or add data.",
            "benchmark.limit.train",
        )
    raise InputError(
        f"split train has no sample of {len(missing)} of {len(classes)} classes: {shown}.",
        "benchmark",
    )
