"""What a search over ridges returns."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.certificate import Certificate
from pipeline.solvers.plane import StoppingPlane


@dataclass(frozen=True)
class PathPoint:
    """One ridge of the path and how it scored."""

    ridge: float
    """In units of the path's ridge scale."""
    ridge_absolute: float
    value: float
    """The score, larger is better; leave-one-out score or minus GCV without a validation split."""
    stderr: float
    converged: bool
    """Whether the solve reached ``tol`` (two basis sizes agreed): only these are selected from."""
    gcv: float | None
    """Generalized cross-validation: the mean squared error that the spectrum predicts for new
    samples of the training distribution (Wei, Hu & Steinhardt 2022)."""


@dataclass(frozen=True)
class StoppedFit:
    """The plane's selected point: a ridge and a stopping time of the dynamics."""

    dual_weights: Float[Tensor, "n k"]
    certificate: Certificate
    """Its residual is that of the ridge solution, which it was stopped short of."""


@dataclass(frozen=True)
class PathResult:
    """The selected ridge, its fit, and the path it was chosen from."""

    ridge: float
    """In units of the path's ridge scale."""
    ridge_absolute: float
    value: float
    stderr: float
    dual_weights: Float[Tensor, "n k"]
    certificate: Certificate
    points: list[PathPoint]
    """Every ridge that was tried, descending."""
    plane: StoppingPlane | None
    """Scores over ridges and stopping times, where they were asked for."""
    stopped: StoppedFit | None
    """The fit at the plane's selected point, where two basis sizes agreed there."""
    at_edge: bool
    """Whether the best score lies at the smallest or largest ridge tried."""
    solver: str
    reason: str


Emit = Callable[[PathPoint], None]
"""Told of every point as soon as it is scored."""
