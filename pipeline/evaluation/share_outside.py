"""Accuracy by how far test rows lie outside the span of the training features.

The rows of all test splits together are cut into groups of equal size by their share outside, so
that rows in distribution and under a shift are compared at equal shares.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray


@dataclass(frozen=True)
class OutsideSpan:
    """How far the rows of the test splits lie outside, and how that was measured."""

    shares: Mapping[str, Float[ndarray, " n"]]
    """By split: the share of each row's squared norm, in [0, 1]."""
    groups: int
    rank: int
    """Eigenvalues of K that counted."""
    n: int
    """Training rows."""
    tolerance: float
    """Relative to the largest eigenvalue, the size at which one counts."""


def by_share_outside(
    outside: OutsideSpan, values: Mapping[str, Mapping[str, Mapping[str, Float[ndarray, " n"]]]]
) -> dict[str, Any]:
    """Means of each method's leading metric over the rows of a group, split by split.

    ``values`` holds, by split and method, what metrics are means of, the leading one first. A
    group that has no row of a split is left out there, ``group`` holds the numbers of the others
    between the edges; equal shares make fewer groups.
    """
    edges = _edges(np.concatenate(list(outside.shares.values())), outside.groups)
    return {
        "groups": outside.groups,
        "rank": outside.rank,
        "n": outside.n,
        "tolerance": outside.tolerance,
        "edges": edges.tolist(),
        "splits": {
            split: _on_split(share, _group_of(share, edges), values[split])
            for split, share in outside.shares.items()
        },
    }


def _edges(shares: Float[ndarray, " n"], groups: int) -> Float[ndarray, " e"]:
    edges: ndarray = np.unique(np.quantile(shares, np.linspace(0, 1, groups + 1)))
    return edges


def _group_of(shares: Float[ndarray, " n"], edges: Float[ndarray, " e"]) -> ndarray:
    """Each row's group; the last edge belongs to the last group."""
    group: ndarray = np.searchsorted(edges[1:-1], shares, side="right")
    return group


def _on_split(
    shares: Float[ndarray, " n"],
    group: ndarray,
    values: Mapping[str, Mapping[str, Float[ndarray, " n"]]],
) -> dict[str, Any]:
    present = np.unique(group)
    rows = [np.flatnonzero(group == one) for one in present]
    return {
        "group": present.tolist(),
        "n": [len(some) for some in rows],
        "share": [float(shares[some].mean()) for some in rows],
        "methods": {
            name: {
                "mean": [float(value[some].mean()) for some in rows],
                "stderr": [_stderr(value[some]) for some in rows],
            }
            for name, metrics in values.items()
            for value in [next(iter(metrics.values()))]
        },
    }


def _stderr(values: Float[ndarray, " n"]) -> float | None:
    """Of the mean; none for a single row."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
