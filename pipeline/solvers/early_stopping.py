"""Early stopping: the validation curve over iterations, and the iteration chosen on it.

The curve of any other split is computed from the finished result's ``trajectory``: what chooses
takes validation rows alone, so no other split's labels can be read before the choice is made.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.cross import CrossKernel
from pipeline.solvers.filters import Dynamics, log_spaced_iterations
from pipeline.solvers.operator import Array, KernelOperator
from pipeline.solvers.ridge_scale import RidgeScale
from pipeline.solvers.select import Score, one_standard_error
from pipeline.solvers.trajectory import Trajectory, trajectory

CURVE_POINTS = 40


@dataclass(frozen=True)
class StoppingResult:
    """The chosen iteration, its weights, and the curve it was chosen on."""

    iteration: int
    value: float
    stderr: float
    dual_weights: Float[Tensor, "n k"]
    iterations: list[int]
    """Where the curve was looked at: log-spaced, ascending."""
    values: list[float]
    stderrs: list[float]
    ridge: float
    """Relative to ``ridge_scale``; 0 follows the unregularized objective."""
    ridge_absolute: float
    trajectory: Trajectory
    """The iterates, for the curves of other splits after the choice."""


def early_stopping(
    K: Array | KernelOperator,
    Y: Array,
    ridge: float,
    K_val: Array | CrossKernel,
    score: Score,
    *,
    max_iterations: int = 3_000,
    dynamics: Dynamics = "nesterov",
    solver: Literal["auto", "lanczos", "eigh", "plain"] = "auto",
    ridge_scale: RidgeScale = "trace",
    tol: float = 1e-6,
    seed: int = 0,
) -> StoppingResult:
    """Follow the dynamics from zero at one ridge and stop where validation says.

    The iteration chosen is the first within one standard error of the best. The recursion runs
    without restart, so that the curve does not depend on the residual.
    """
    iterations = log_spaced_iterations(CURVE_POINTS, max_iterations)
    path = trajectory(
        K,
        Y,
        ridge,
        iterations,
        dynamics=dynamics,
        solver=solver,
        ridge_scale=ridge_scale,
        tol=tol,
        seed=seed,
    )
    grades = [score(predictions) for predictions in path.predictions(K_val)]
    chosen = one_standard_error(grades)
    return StoppingResult(
        iteration=iterations[chosen],
        value=grades[chosen].value,
        stderr=grades[chosen].stderr,
        dual_weights=path.dual_weights(iterations[chosen]),
        iterations=iterations,
        values=[grade.value for grade in grades],
        stderrs=[grade.stderr for grade in grades],
        ridge=ridge,
        ridge_absolute=path.ridge_absolute,
        trajectory=path,
    )


def stopping_curve(
    path: Trajectory, K_cross: Array | CrossKernel, score: Score
) -> list[tuple[int, float, float]]:
    """(iteration, value, stderr) of another split along a finished trajectory."""
    grades = (score(predictions) for predictions in path.predictions(K_cross))
    pairs = zip(path.iterations, grades, strict=True)
    return [(t, grade.value, grade.stderr) for t, grade in pairs]
