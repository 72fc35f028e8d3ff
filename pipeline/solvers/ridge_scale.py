"""What a ridge of 1 means: the units in which ridges are given, and the grid worth searching."""

from typing import Literal

import numpy as np
import torch

from pipeline.solvers.operator import KernelOperator
from pipeline.solvers.refusal import rounding_floor

RidgeScale = Literal["trace", "lambda_max", "absolute"]

GRID_SIZE = 40

SMALLEST_SHARE = 2.0**-23
"""Lower end of the default grid, relative to λ_max, where K's rounding would allow less: what a
float32 kernel allows, so that one that is never formed is searched at the same ridges."""


def ridge_unit(operator: KernelOperator, scale: RidgeScale, lambda_max: float) -> float:
    """The absolute ridge that one unit stands for: mean(diag K), λ_max, or 1."""
    if scale == "absolute":
        return 1.0
    if scale == "lambda_max":
        return lambda_max
    diagonal = operator.diagonal()[:, None]
    return float(operator.inner(diagonal, torch.ones_like(diagonal))) / operator.n


def default_ridges(
    operator: KernelOperator, lambda_max: float, count: int = GRID_SIZE
) -> list[float]:
    """Absolute ridges, descending, from λ_max down to the smallest that K's rounding allows."""
    smallest = max(rounding_floor(operator, lambda_max), SMALLEST_SHARE * lambda_max)
    return [float(ridge) for ridge in np.geomspace(lambda_max, smallest, count)]
