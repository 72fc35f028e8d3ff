"""Standard errors of shares and means."""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def accuracy_stderr(share: float, n: int) -> float:
    """Binomial standard error √(a(1 − a)/n) of an accuracy a over n rows."""
    return math.sqrt(share * (1.0 - share) / n)


def mean_stderr(values: Float[ndarray, " n"]) -> float:
    """Standard error of a mean, sd/√n with the n − 1 sd; 0 for one row, which shows no spread."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
