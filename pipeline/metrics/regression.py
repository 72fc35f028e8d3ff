"""How good predicted means are: squared error, likelihood, interval coverage."""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import norm

from pipeline.metrics.checks import checked_targets
from pipeline.metrics.errors import mean_stderr
from pipeline.metrics.ranking import auroc
from pipeline.types import InputError

COVERAGE_LEVEL = 0.95
"""Nominal level of the central interval whose coverage is reported for regressions."""


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
    ``stderr`` is the mean squared error's; ``auroc`` is there where one target has two values.
    """
    means, targets = checked_targets(means, targets)
    variance = np.broadcast_to(np.asarray(variance, dtype=np.float64), means.shape)
    if not (np.isfinite(variance).all() and (variance > 0.0).all()):
        raise InputError("predictive variances must be positive and finite.")
    squares = (means - targets) ** 2
    losses = np.mean(0.5 * (np.log(2.0 * math.pi * variance) + squares / variance), axis=1)
    covered = squares <= norm.ppf(0.5 + level / 2.0) ** 2 * variance
    area = auroc(means[:, 0], targets[:, 0]) if targets.shape[1] == 1 else None
    return {
        "n": len(targets),
        "mse": float(np.mean(squares)),
        "nll": float(np.mean(losses)),
        "coverage": float(np.mean(covered)),
        "coverage_level": level,
        "stderr": mean_stderr(np.mean(squares, axis=1)),
        "nll_stderr": mean_stderr(losses),
        **({} if area is None else {"auroc": area}),
    }
