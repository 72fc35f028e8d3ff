"""How good class scores are: accuracy, likelihood, and every metric of one split at once.

Everything is float64. A score that is not finite is refused: it never becomes a metric.
"""

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from pipeline.metrics.calibration import expected_calibration_error, log_probabilities
from pipeline.metrics.checks import checked_scores
from pipeline.metrics.errors import accuracy_stderr, mean_stderr
from pipeline.metrics.groups import group_scores, worst_group
from pipeline.metrics.ranking import auroc


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


def sample_brier(
    scores: Float[ndarray, "n k"], labels: Int[ndarray, " n"], temperature: float = 1.0
) -> Float[ndarray, " n"]:
    """Σ_c (q_c − [label = c])² of every row, between 0 and 2 (Brier 1950)."""
    scores, labels = checked_scores(scores, labels)
    errors = np.exp(log_probabilities(scores, temperature))
    errors[np.arange(len(labels)), labels] -= 1.0
    return np.sum(errors**2, axis=1)


def brier(
    scores: Float[ndarray, "n k"], labels: Int[ndarray, " n"], temperature: float = 1.0
) -> float:
    """Mean over rows of Σ_c (q_c − [label = c])²."""
    return float(np.mean(sample_brier(scores, labels, temperature)))


def classification_metrics(
    scores: Float[ndarray, "n k"],
    labels: Int[ndarray, " n"],
    temperature: float,
    groups: Shaped[ndarray, " n"] | None = None,
) -> dict[str, float]:
    """Every classification metric of one split, under the names of ``metrics.json``.

    ``nll``, ``brier`` and ``ece`` are at the temperature, ``nll_raw`` and ``ece_raw`` at T = 1;
    ``stderr`` is the accuracy's, ``nll_stderr`` the NLL's. ``auroc`` is there for two classes,
    ``worst_group_accuracy`` where ``groups`` names each row's domain.
    """
    scores, labels = checked_scores(scores, labels)
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
        **_where_it_applies(scores, labels, groups),
    }


def _where_it_applies(
    scores: Float[ndarray, "n k"],
    labels: Int[ndarray, " n"],
    groups: Shaped[ndarray, " n"] | None,
) -> dict[str, float]:
    found = {}
    area = auroc(scores[:, 1] - scores[:, 0], labels) if scores.shape[1] == 2 else None
    if area is not None:
        found["auroc"] = area
    if groups is not None:
        by_group = group_scores(scores, labels, groups)
        found["worst_group_accuracy"] = by_group[worst_group(by_group)].accuracy
    return found
