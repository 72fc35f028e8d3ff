"""Telescopic grids: coarse over the whole range, then finer around what was chosen."""

from collections.abc import Sequence

import numpy as np

BETWEEN = 3
"""New ridges between the chosen one and each neighbour."""


def coarse(ridges: Sequence[float], per_decade: float = 1.0) -> list[float]:
    """About one ridge a decade over the range of ``ridges``, descending."""
    largest, smallest = max(ridges), min(ridges)
    count = 1 + int(np.ceil(per_decade * np.log10(largest / smallest)))
    return [float(ridge) for ridge in np.geomspace(largest, smallest, max(count, 2))]


def refined(ridges: Sequence[float], chosen: int) -> list[float]:
    """Ridges between the chosen one and its neighbours, evenly spaced in log, descending."""
    found: list[float] = []
    for left, right in ((chosen - 1, chosen), (chosen, chosen + 1)):
        if left < 0 or right >= len(ridges) or ridges[right] <= 0:
            continue
        grid = np.geomspace(ridges[left], ridges[right], BETWEEN + 2)[1:-1]
        found += [float(ridge) for ridge in grid]
    return found
