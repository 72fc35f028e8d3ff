"""Whether confidence is what it says: the temperature, the calibration error, its diagram.

Scores s, shape (n, k), become probabilities as softmax(s / T); T is fitted on a validation split,
because scores of a ridge regression are no logits and their likelihood means nothing at T = 1.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from pipeline.metrics.checks import checked_scores
from pipeline.types import InputError

ECE_BINS = 15
"""Equal-width confidence bins of the expected calibration error (Guo et al. 2017 use 15)."""

TEMPERATURE_DECADES = 5
"""T is sought within this many powers of ten around the spread of the scores."""


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in equal-width bins (Niculescu-Mizil & Caruana 2005)."""

    counts: list[int]
    """Rows of each bin."""
    confidence: list[float | None]
    """Mean largest probability of each bin's rows; None where it has none."""
    accuracy: list[float | None]
    """Share of each bin's rows that are right; None where it has none."""


def log_probabilities(
    scores: Float[ndarray, "n k"], temperature: float = 1.0
) -> Float[ndarray, "n k"]:
    """log softmax(scores / T) over the k classes, stable at any scale."""
    if not (temperature > 0.0 and math.isfinite(temperature)):
        raise InputError(f"a temperature must be positive and finite, got {temperature}.")
    return log_softmax(np.asarray(scores, dtype=np.float64) / temperature, axis=1)


def top_label(
    scores: Float[ndarray, "n k"], labels: Int[ndarray, " n"], temperature: float = 1.0
) -> tuple[Float[ndarray, " n"], Int[ndarray, " n"]]:
    """Each row's largest probability, and 1 where that class is the label, else 0."""
    scores, labels = checked_scores(scores, labels)
    confidence = np.exp(log_probabilities(scores, temperature).max(axis=1))
    return confidence, (scores.argmax(axis=1) == labels).astype(np.int64)


def expected_calibration_error(
    scores: Float[ndarray, "n k"],
    labels: Int[ndarray, " n"],
    temperature: float = 1.0,
    *,
    bins: int = ECE_BINS,
) -> float:
    """Top-label ECE: mean |confidence − accuracy| over equal-width bins, weighted by their rows."""
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    confidence, correct = top_label(scores, labels, temperature)
    # The binary form on (confidence, correct) is the multiclass one, and stays in float64.
    error = binary_calibration_error(
        torch.from_numpy(confidence), torch.from_numpy(correct), n_bins=bins, norm="l1"
    )
    return float(error)


def fit_temperature(scores: Float[ndarray, "n k"], labels: Int[ndarray, " n"]) -> float:
    """The T > 0 that minimizes the NLL of softmax(scores / T); fit it on validation rows only.

    The NLL is convex in 1/T, so the one-dimensional search over log T finds its minimum. Where
    every row is right the minimum lies at T = 0, infinite confidence from finitely many rows; one
    pseudo-row whose label is spread evenly over the classes then keeps T positive, as the
    smoothed targets of Platt (1999) do.
    """
    scores, labels = checked_scores(scores, labels)
    spread = float(np.std(scores - scores.mean(axis=1, keepdims=True)))
    if spread == 0.0:
        return 1.0  # Equal scores give even probabilities at every T.
    all_right = bool((scores.argmax(axis=1) == labels).all())
    pseudo_rows = 1.0 / len(labels) if all_right else 0.0

    def objective(log_temperature: float) -> float:
        log_q = log_probabilities(scores, math.exp(log_temperature))
        label_nll = -np.mean(log_q[np.arange(len(labels)), labels])
        return float(label_nll - pseudo_rows * np.mean(log_q))

    reach = TEMPERATURE_DECADES * math.log(10.0)
    centre = math.log(spread)
    found = minimize_scalar(
        objective,
        bounds=(centre - reach, centre + reach),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return math.exp(found.x)


def reliability(
    scores: Float[ndarray, "n k"],
    labels: Int[ndarray, " n"],
    temperature: float = 1.0,
    *,
    bins: int = ECE_BINS,
) -> Reliability:
    """The bins whose gaps, weighted by their rows, add up to the expected calibration error."""
    from scipy.stats import binned_statistic

    confidence, correct = top_label(scores, labels, temperature)
    counts, means = (
        binned_statistic(confidence, [confidence, correct], kind, bins=bins, range=(0.0, 1.0))[0]
        for kind in ("count", "mean")
    )
    filled = counts[0] > 0
    mean_confidence, share_right = (
        [float(value) if there else None for value, there in zip(row, filled, strict=True)]
        for row in means
    )
    return Reliability(counts[0].astype(int).tolist(), mean_confidence, share_right)
