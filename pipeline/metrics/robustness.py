"""Effective robustness: accuracy under shift beyond what accuracy in distribution promises.

On the probit scale, OOD over ID accuracy of many models lies close to one line (Miller et al.
2021); a model's effective robustness is its height above that line (Taori et al. 2020, eq. 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import linregress, norm


@dataclass(frozen=True)
class ProbitLine:
    """Φ⁻¹(OOD accuracy) = slope · Φ⁻¹(ID accuracy) + intercept."""

    slope: float
    intercept: float
    correlation: float
    """Pearson's, on the probit scale."""
    points: int
    """Models that the line was fitted to."""

    def expected(self, id_accuracy: float) -> float:
        """The OOD accuracy that the line promises at an ID accuracy, both shares in (0, 1)."""
        return float(norm.cdf(self.slope * norm.ppf(id_accuracy) + self.intercept))

    def effective_robustness(self, id_accuracy: float, ood_accuracy: float) -> float:
        """OOD accuracy above the line, as a share."""
        return ood_accuracy - self.expected(id_accuracy)


def probit_line(id_accuracy: Sequence[float], ood_accuracy: Sequence[float]) -> ProbitLine | None:
    """The least-squares line through pairs of shares, on the probit scale.

    Shares of 0 and 1 have no probit and are left out. None with fewer than three different ID
    accuracies: a line through two points says nothing of either.
    """
    pairs = np.array([*zip(id_accuracy, ood_accuracy, strict=True)], dtype=float).reshape(-1, 2)
    inside = pairs[((pairs > 0.0) & (pairs < 1.0)).all(axis=1)]
    if len(np.unique(inside[:, 0])) < 3:
        return None
    found = linregress(*norm.ppf(inside).T)
    correlation = 0.0 if np.isnan(found.rvalue) else float(found.rvalue)
    return ProbitLine(float(found.slope), float(found.intercept), correlation, len(inside))
