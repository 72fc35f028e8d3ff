"""From rows and residuals to a posterior, in the space where it is cheaper."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gp.function_space import FunctionSpace
from pipeline.gp.parameter_space import ParameterSpace
from pipeline.types import InputError

Space = Literal["auto", "function", "parameter"]
"""n×n systems, p×p systems, or the smaller of the two. The answers are the same."""

Posterior = FunctionSpace | ParameterSpace


def condition(
    rows: Float[Tensor, "n p"],
    residuals: Float[Tensor, "n c"],
    outputscale: float,
    noise: float | Float[Tensor, " n"],
    *,
    space: Space = "auto",
) -> Posterior:
    """The posterior of f − μ given y − μ on these rows."""
    if not 0 < outputscale < math.inf:
        raise InputError(f"the outputscale must be finite and above 0, got {outputscale}.")
    if space not in ("auto", "function", "parameter"):
        raise InputError(f"space must be auto, function or parameter; got {space!r}.")
    # Parameter space divides by the noise; function space says which rows are singular without.
    noisy = bool((torch.as_tensor(noise) > 0).all())
    smaller = "parameter" if noisy and rows.shape[1] < rows.shape[0] else "function"
    chosen = smaller if space == "auto" else space
    kind = FunctionSpace if chosen == "function" else ParameterSpace
    return kind.of(rows, residuals, outputscale, noise)
