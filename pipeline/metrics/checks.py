"""What metrics refuse: shapes that do not match, labels out of range, values not finite."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from pipeline.types import InputError


def checked_scores(
    scores: Float[ndarray, "n k"], labels: Int[ndarray, " n"]
) -> tuple[Float[ndarray, "n k"], Int[ndarray, " n"]]:
    """Scores in float64 and labels in int64, refused unless finite, matching and in range."""
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or len(labels) == 0:
        raise InputError(
            "expected scores of shape (n, k) and labels of shape (n,) with n > 0, "
            f"found {scores.shape} and {labels.shape}."
        )
    _refuse_non_finite(scores, "score")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels must be integers, found {labels.dtype}.")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise InputError(
            f"labels must lie in 0 … {scores.shape[1] - 1}, the columns of the scores; "
            f"found {labels.min()} … {labels.max()}."
        )
    return scores, labels.astype(np.int64, copy=False)


def checked_targets(
    means: Float[ndarray, "n k"], targets: Float[ndarray, "n k"]
) -> tuple[Float[ndarray, "n k"], Float[ndarray, "n k"]]:
    """Predicted means and targets in float64, refused unless finite and of one shape (n, k)."""
    means, targets = np.asarray(means, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if means.ndim != 2 or means.shape != targets.shape or len(means) == 0:
        raise InputError(
            "expected means and targets of one shape (n, k) with n > 0, "
            f"found {means.shape} and {targets.shape}."
        )
    _refuse_non_finite(means, "predicted mean")
    _refuse_non_finite(targets, "target")
    return means, targets


def _refuse_non_finite(values: ndarray, name: str) -> None:
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        rows = np.flatnonzero(~finite)
        raise InputError(
            f"{len(rows)} of {len(values)} rows hold a {name} that is not finite (first: row "
            f"{rows[0]}). The method diverged or overflowed; it has no metric."
        )
