"""Bootstrap confidence intervals of means, paired between rows."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import bootstrap

LEVEL = 0.95
"""Probability of the central interval."""

RESAMPLES = 2000
"""Resamples of the rows of a split: enough for the second digit of a 95 % interval."""

BATCH_VALUES = 4_000_000
"""Values resampled at once: 32 MB."""


def mean_intervals(
    values: Float[ndarray, "q n"],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Float[ndarray, "q 2"]:
    """Percentile intervals of the means of q quantities over the same n samples (Efron 1979).

    All quantities are resampled at the same samples, so that the interval of a row of differences
    between two methods is the paired one. One sample shows no spread: its interval is its value.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape[1] < 2:
        return np.repeat(values.mean(axis=1, keepdims=True), 2, axis=1)
    found = bootstrap(
        (values,),
        np.mean,
        axis=-1,
        method="percentile",
        confidence_level=level,
        n_resamples=resamples,
        batch=max(1, BATCH_VALUES // values.size),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.stack([found.low, found.high], axis=1)
