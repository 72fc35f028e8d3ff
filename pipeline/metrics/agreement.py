"""Whether methods predict alike, and whether they fail on the same rows."""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray


def agreement(classes: Int[ndarray, "q n"]) -> Float[ndarray, "q q"]:
    """Share of rows on which two methods predict the same class."""
    return np.mean(classes[:, None, :] == classes[None, :, :], axis=2)


def error_consistency(right: Bool[ndarray, "q n"]) -> list[list[float | None]]:
    """Cohen's κ of being right, for every pair of methods (Geirhos et al. 2020).

    0: they are right on the same rows no more often than their accuracies make them; 1: on exactly
    the same rows. None where both are right on all rows, or wrong on all.
    """
    from sklearn.metrics import cohen_kappa_score

    def kappa(a: ndarray, b: ndarray) -> float | None:
        constant = len(np.unique(np.concatenate([a, b]))) < 2
        return None if constant else float(cohen_kappa_score(a, b))

    return [[kappa(a, b) for b in right] for a in right]
