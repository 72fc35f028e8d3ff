"""How good predictions are: accuracy, likelihood, calibration, and how sure we are of each.

Scores s, shape (n, k), become probabilities as softmax(s / T); T is fitted on a validation split,
because scores of a ridge regression are no logits and their likelihood means nothing at T = 1.
Everything is float64. A score that is not finite is refused: it never becomes a metric.
"""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import norm

from pipeline.types import InputError

ECE_BINS = 15
"""Equal-width confidence bins of the expected calibration error (Guo et al. 2017 use 15)."""

COVERAGE_LEVEL = 0.95
"""Nominal level of the central interval whose coverage is reported for regressions."""

TEMPERATURE_DECADES = 5
"""T is sought within this many powers of ten around the spread of the scores."""


def accuracy(scores: Float[ndarray, "n k"], labels: Int[ndarray, " n"]) -> float:
    """Share of rows whose largest score is the label's."""
    scores, labels = checked_scores(scores, labels)
    return float(np.mean(scores.argmax(axis=1) == labels))


def balanced_accuracy(scores: Float[ndarray, "n k"], labels: Int[ndarray, " n"]) -> float:
    """Mean over the classes that occur of the accuracy within each."""
    from sklearn.metrics import recall_score

    scores, labels = checked_scores(scores, labels)
    return float(
        recall_score(labels, scores.argmax(axis=1), average="macro", labels=np.unique(labels))
    )


def accuracy_stderr(share: float, n: int) -> float:
    """Binomial standard error √(a(1 − a)/n) of an accuracy a over n rows."""
    return math.sqrt(share * (1.0 - share) / n)


def mean_stderr(values: Float[ndarray, " n"]) -> float:
    """Standard error of a mean, sd/√n with the n − 1 sd; 0 for one row, which shows no spread."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def log_probabilities(
    scores: Float[ndarray, "n k"], temperature: float = 1.0
) -> Float[ndarray, "n k"]:
    """log softmax(scores / T) over the k classes, stable at any scale."""
    if not (temperature > 0.0 and math.isfinite(temperature)):
        raise InputError(f"a temperature must be positive and finite, got {temperature}.")
    return log_softmax(np.asarray(scores, dtype=np.float64) / temperature, axis=1)


def sample_nll(
    scores: Float[ndarray, "n k"], labels: Int[ndarray, " n"], temperature: float = 1.0
) -> Float[ndarray, " n"]:
    """Negative log-likelihood of every row's label, in nats."""
    scores, labels = checked_scores(scores, labels)
    return -log_probabilities(scores, temperature)[np.arange(len(labels)), labels]


def nll(
    scores: Float[ndarray, "n k"], labels: Int[ndarray, " n"], temperature: float = 1.0
) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    return float(np.mean(sample_nll(scores, labels, temperature)))


def brier(
    scores: Float[ndarray, "n k"], labels: Int[ndarray, " n"], temperature: float = 1.0
) -> float:
    """Mean over rows of Σ_c (q_c − [label = c])², between 0 and 2 (Brier 1950)."""
    scores, labels = checked_scores(scores, labels)
    errors = np.exp(log_probabilities(scores, temperature))
    errors[np.arange(len(labels)), labels] -= 1.0
    return float(np.mean(np.sum(errors**2, axis=1)))


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

    scores, labels = checked_scores(scores, labels)
    confidence = np.exp(log_probabilities(scores, temperature).max(axis=1))
    correct = (scores.argmax(axis=1) == labels).astype(np.int64)
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
    pseudo_rows = 1.0 / len(labels) if accuracy(scores, labels) == 1.0 else 0.0

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


def classification_metrics(
    scores: Float[ndarray, "n k"], labels: Int[ndarray, " n"], temperature: float
) -> dict[str, float]:
    """Every classification metric of one split, under the names of ``metrics.json``.

    ``nll``, ``brier`` and ``ece`` are at the temperature, ``nll_raw`` and ``ece_raw`` at T = 1;
    ``stderr`` is the accuracy's, ``nll_stderr`` the NLL's.
    """
    share = accuracy(scores, labels)
    losses = sample_nll(scores, labels, temperature)
    return {
        "n": len(labels),
        "accuracy": share,
        "balanced_accuracy": balanced_accuracy(scores, labels),
        "nll": float(np.mean(losses)),
        "nll_raw": nll(scores, labels),
        "brier": brier(scores, labels, temperature),
        "ece": expected_calibration_error(scores, labels, temperature),
        "ece_raw": expected_calibration_error(scores, labels),
        "stderr": accuracy_stderr(share, len(labels)),
        "nll_stderr": mean_stderr(losses),
    }


def fit_variance(
    means: Float[ndarray, "m k"], targets: Float[ndarray, "m k"]
) -> Float[ndarray, " k"]:
    """Per target the mean squared residual: the constant Gaussian variance of greatest likelihood.

    For predictors that give no variance of their own; fit it on validation rows only. Residuals
    that are all zero are refused, for a variance of zero has no likelihood.
    """
    means, targets = checked_targets(means, targets)
    variance = np.mean((means - targets) ** 2, axis=0)
    if not (variance > 0.0).all():
        raise InputError(
            "every validation residual of a target is zero, so no predictive variance can be "
            "fitted. Check that the validation rows are not training rows."
        )
    return variance


def regression_metrics(
    means: Float[ndarray, "n k"],
    targets: Float[ndarray, "n k"],
    variance: Float[ndarray, "..."],
    *,
    level: float = COVERAGE_LEVEL,
) -> dict[str, float]:
    """Mean squared error, Gaussian NLL and interval coverage of one split.

    ``variance`` is the predictive one, of shape (n, k) or (k,), in squared units of the targets.
    ``coverage`` is the share of targets within the central interval of probability ``level``;
    ``stderr`` is the mean squared error's.
    """
    means, targets = checked_targets(means, targets)
    variance = np.broadcast_to(np.asarray(variance, dtype=np.float64), means.shape)
    if not (np.isfinite(variance).all() and (variance > 0.0).all()):
        raise InputError("predictive variances must be positive and finite.")
    squares = (means - targets) ** 2
    losses = np.mean(0.5 * (np.log(2.0 * math.pi * variance) + squares / variance), axis=1)
    covered = squares <= norm.ppf(0.5 + level / 2.0) ** 2 * variance
    return {
        "n": len(targets),
        "mse": float(np.mean(squares)),
        "nll": float(np.mean(losses)),
        "coverage": float(np.mean(covered)),
        "coverage_level": level,
        "stderr": mean_stderr(np.mean(squares, axis=1)),
        "nll_stderr": mean_stderr(losses),
    }


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
