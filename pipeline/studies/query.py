"""Which samples a person should label next: the oracle is a file of answers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.analyses.active import RULES, View
from pipeline.analyses.answers import read_answers
from pipeline.analyses.lookahead import LookAhead
from pipeline.analyses.pool import StoredPool
from pipeline.store import FeatureStore
from pipeline.types import InputError


@dataclass(frozen=True)
class Query:
    """What is asked next."""

    ids: list[str]
    predicted: list[int]
    """The classes that the answers so far suggest for them; without any they say nothing."""
    answered: int


def next_queries(
    pool: FeatureStore,
    answers: Path | None,
    classes: list[str],
    *,
    rule: str = "mlmoc",
    size: int = 10,
    candidates: int = 1_000,
    ridge: float = 1e-3,
    seed: int = 0,
) -> Query:
    """The samples that a rule asks for, given the answers so far; by chance without any.

    ``ridge`` is relative to the mean of the pool kernel's diagonal; at most ``candidates`` of the
    unlabelled samples are looked at, drawn by chance.
    """
    if rule not in RULES:
        raise InputError(f"unknown rule {rule!r}; known: {', '.join(RULES)}.")
    ids, k = pool.ids(), len(classes)
    if k < 2:
        raise InputError(f"labels are classes, two at least; found {classes}.")
    _refuse_other_classes(pool, classes)
    known = read_answers(answers, ids, classes) if answers is not None else {}
    kernel = StoredPool(pool)
    absolute = ridge * float(kernel.features.row_squares().mean())
    base = torch.full((len(ids), k), 1 / k, dtype=torch.float64)
    state = LookAhead.start(kernel, base, list(known), list(known.values()), absolute)
    left = np.setdiff1d(np.arange(len(ids)), list(known)).astype(np.int64)
    if len(left) == 0:
        raise InputError(
            f"all {len(ids)} samples of the pool are labelled: nothing is left to ask."
        )
    generator = np.random.default_rng((seed, len(known)))
    left = np.sort(generator.permutation(left)[:candidates])
    view = View(state, pool.penultimate(), 1.0, int(generator.integers(2**31)))
    chosen = RULES[rule if known else "random"](view, left.tolist(), size)
    predicted = state.outputs()[chosen].argmax(dim=1).tolist()
    return Query([ids[i] for i in chosen], predicted, len(known))


def _refuse_other_classes(pool: FeatureStore, classes: list[str]) -> None:
    """A pool may have labels of its own; they are never shown, but they have to fit."""
    if not all(classes):
        raise InputError(f"a class without a name, in {','.join(classes)!r}: is a comma too many?")
    if len(set(classes)) < len(classes):
        raise InputError(f"the classes {', '.join(classes)} are not all different.")
    labels = pool.labels()
    if labels.dtype != np.int64:
        raise InputError("a query asks for classes; this pool's run is a regression.")
    if int(labels.max()) >= len(classes):
        raise InputError(
            f"the label sets differ: {len(classes)} classes are named, the pool's run has "
            f"{int(labels.max()) + 1}. Name them all, in the run's order."
        )
