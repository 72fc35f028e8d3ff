"""From candidate images to a benchmark: unreadable ones, order, hold-out, copies, limits, checks.

Benchmarks say which rows belong where; what must hold for every benchmark happens here, in an
order that matters: unreadable images go before rows are numbered, the validation split is held
out before limits, and copies go before limits, so that a limit is met exactly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from pipeline.config import Options, Seed
from pipeline.data.order import stratified_order, stream
from pipeline.data.readable import unreadable_rows
from pipeline.data.split import (
    Benchmark,
    Contents,
    Labels,
    Rows,
    Source,
    Split,
    fingerprints,
    may_share,
    refuse_overlap,
)
from pipeline.types import InputError

Fraction = Annotated[float, Field(ge=0, lt=1)]


class BenchmarkOptions(Options):
    """What every benchmark's options share."""

    seed: Seed = 0
    """Draws the order of rows, the validation split, and classes where those are drawn."""
    limit: dict[str, PositiveInt] = Field(default_factory=dict)
    """Largest number of samples of a split, by its name; prefixes of one another."""


class HeldOutOptions(BenchmarkOptions):
    """Options of benchmarks that bring training data without a validation split."""

    holdout: Fraction = 0.1
    """Share of the training samples held out as `val`, stratified; 0 for none."""
    duplicates: Literal["stop", "drop"] = "stop"
    """Copies across splits stop the run, or stay only in the split that is tested on."""


class FileBenchmarkOptions(HeldOutOptions):
    """Options of benchmarks read from image files."""

    on_bad: Literal["stop", "skip"] = "stop"
    """Unreadable images stop the run, or are found by decoding all of them once, and left out."""


@dataclass(frozen=True, eq=False)
class Pool:
    """The candidates of one split."""

    source: Source
    rows: Rows
    labels: Labels
    strata: Rows
    """What order and hold-out are stratified by: the finest known class, int64 (n,)."""
    groups: Rows | None = None
    derived_from: str | None = None
    """As in :class:`pipeline.data.split.Split`."""

    def take(self, positions: Rows) -> "Pool":
        """The pool restricted to some positions, in the given order."""
        return replace(
            self,
            rows=self.rows[positions],
            labels=self.labels[positions],
            strata=self.strata[positions],
            groups=None if self.groups is None else self.groups[positions],
        )


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What :func:`assemble` is asked to do, as plain values."""

    seed: int = 0
    holdout: float = 0.0
    limit: Mapping[str, int]
    skip_unreadable: bool = False
    drop_copies: bool = False

    @classmethod
    def of(cls, options: HeldOutOptions) -> "Rules":
        """The rules that a benchmark's options state."""
        return cls(
            seed=options.seed,
            holdout=options.holdout,
            limit=options.limit,
            skip_unreadable=isinstance(options, FileBenchmarkOptions) and options.on_bad == "skip",
            drop_copies=options.duplicates == "drop",
        )


def assemble(
    name: str,
    classes: Sequence[str],
    pools: Mapping[str, Pool],
    rules: Rules,
    *,
    notes: Sequence[str] = (),
    group_names: Sequence[str] = (),
    contents: Contents = fingerprints,
) -> Benchmark:
    """The benchmark over these candidates; ``train`` gives up a share ``holdout`` to ``val``.

    ``contents`` tells copies; a benchmark whose sources differ in format brings its own.

    Raises ``InputError`` for empty splits, classes without training images, labels out of range,
    and samples that lie in two splits.
    """
    said = list(notes)
    for split, pool in pools.items():
        if len(pool.rows) == 0:
            raise InputError(f"split {split} is empty: no sample was found for it.", "benchmark")
    candidates = dict(pools)
    if rules.skip_unreadable:
        candidates, skipped = _without_unreadable(candidates)
        said += skipped
    candidates = _ordered(candidates, rules.seed)
    candidates = _held_out(candidates, rules.holdout)
    checked: Mapping[str, Pool] = {}
    if rules.drop_copies:
        checked = candidates
    elif "val" in candidates and "val" not in pools:
        # Copies within the training data may be torn apart by the hold-out: nobody's mistake.
        checked = {"train": candidates["train"], "val": candidates["val"]}
    without, dropped = _without_copies(checked, contents)
    _refuse_nothing_left(checked, without)
    candidates |= without
    said += dropped
    candidates, short = _limited(candidates, rules.limit)
    splits = {
        split: Split(split, pool.source, pool.rows, pool.labels, pool.groups, pool.derived_from)
        for split, pool in candidates.items()
    }
    benchmark = Benchmark(
        name, list(classes), splits, tuple(said + short), group_names=tuple(group_names)
    )
    refuse_overlap(benchmark.splits, contents)
    return benchmark


def _without_unreadable(pools: Mapping[str, Pool]) -> tuple[dict[str, Pool], list[str]]:
    kept, notes = {}, []
    for split, pool in pools.items():
        bad = unreadable_rows(pool.source, pool.rows)
        kept[split] = pool.take(np.flatnonzero(~np.isin(pool.rows, list(bad))))
        examples = "; ".join(list(bad.values())[:3])
        if len(kept[split].rows) == 0:
            raise InputError(
                f"split {split}: none of its {len(pool.rows)} image(s) can be read, such as "
                f"{examples}.",
                "benchmark",
            )
        if bad:
            notes.append(f"{split}: {len(bad)} unreadable image(s) skipped, such as {examples}")
    return kept, notes


def _ordered(pools: Mapping[str, Pool], seed: int) -> dict[str, Pool]:
    return {
        split: pool.take(stratified_order(pool.strata, stream(seed, f"order of {split}")))
        for split, pool in pools.items()
    }


def _held_out(pools: Mapping[str, Pool], holdout: float) -> dict[str, Pool]:
    """``val`` is the head of the training pool's stratified order, unless it is given."""
    if holdout == 0.0 or "val" in pools:
        return dict(pools)
    train = pools["train"]
    size = round(holdout * len(train.rows))
    positions = np.arange(len(train.rows))
    result: dict[str, Pool] = {}
    for split, pool in pools.items():
        result[split] = pool
        if split == "train":
            result["train"] = train.take(positions[size:])
            result["val"] = train.take(positions[:size])
    return result


def _without_copies(
    pools: Mapping[str, Pool], contents: Contents
) -> tuple[dict[str, Pool], list[str]]:
    """Copies stay where they are tested: tests win over validation, validation over training."""
    origins = {split: pool.derived_from for split, pool in pools.items()}
    taken: dict[str, set[str]] = {}
    kept, notes = {}, []
    for split in sorted(pools, key=_precedence):
        pool = pools[split]
        held = contents(pool.source, pool.rows)
        elsewhere = set[str]().union(
            *(taken[other] for other in taken if not may_share(origins, split, other))
        )
        fresh = np.array([content not in elsewhere for content in held], dtype=bool)
        taken[split] = set(held)
        kept[split] = pool.take(np.flatnonzero(fresh))
        if not fresh.all():
            notes.append(
                f"{split}: {int((~fresh).sum())} sample(s) dropped because their exact copies lie "
                "in a validation or test split"
            )
    return {split: kept[split] for split in pools}, notes


def _refuse_nothing_left(before: Mapping[str, Pool], after: Mapping[str, Pool]) -> None:
    emptied = [
        f"{split} ({len(pool.rows)})"
        for split, pool in before.items()
        if len(pool.rows) > 0 and len(after[split].rows) == 0
    ]
    if emptied:
        raise InputError(
            f"nothing is left of split(s) {', '.join(emptied)}: every sample there is an exact "
            "copy of one in a validation or test split, and was dropped. Are these the same files?",
            "benchmark",
        )


def _precedence(split: str) -> int:
    order = {"id_test": 0, "val": 2, "train": 3, "pretrain": 4}
    return order.get(split, 1)


def _limited(
    pools: Mapping[str, Pool], limit: Mapping[str, int]
) -> tuple[dict[str, Pool], list[str]]:
    result, notes = dict(pools), []
    for split, size in limit.items():
        if split not in pools:
            raise InputError(
                f"no split {split!r} to limit; this benchmark has {', '.join(pools)}.",
                f"benchmark.limit.{split}",
            )
        available = len(pools[split].rows)
        if available < size:
            notes.append(f"{split}: {size} samples asked for, {available} available")
        result[split] = pools[split].take(np.arange(min(size, available)))
    return result, notes
