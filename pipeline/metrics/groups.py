"""Accuracy within the domains of a split, and the worst of them (Sagawa et al. 2020)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from pipeline.metrics.checks import checked_scores
from pipeline.types import InputError


@dataclass(frozen=True)
class GroupScore:
    """One domain's rows and how many of them are right."""

    n: int
    accuracy: float


def group_scores(
    scores: Float[ndarray, "n k"], labels: Int[ndarray, " n"], groups: Shaped[ndarray, " n"]
) -> dict[str, GroupScore]:
    """Rows and accuracy of every domain that occurs, by name; ``groups`` names each row's."""
    scores, labels = checked_scores(scores, labels)
    if groups.shape != labels.shape:
        raise InputError(f"expected {len(labels)} domains, one a row, found {groups.shape}.")
    right = scores.argmax(axis=1) == labels
    return {
        str(name): GroupScore(int((groups == name).sum()), float(right[groups == name].mean()))
        for name in np.unique(groups)
    }


def worst_group(scores: dict[str, GroupScore]) -> str:
    """The domain of lowest accuracy; of equal ones the first by name."""
    return min(scores, key=lambda name: (scores[name].accuracy, name))
