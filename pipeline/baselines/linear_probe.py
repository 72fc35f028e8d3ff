"""Linear probing as Kumar et al. (2022) do it: logistic regression on penultimate activations.

As in their code, the features are divided by one number, the standard deviation of all their
entries, and C grows from its smallest value, each fit starting where the last ended. Columns are
centred as well: this changes the free intercept and the speed of convergence, not the optimum.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import Field

from pipeline.baselines.probe import Linear, ProbeFit, check_splits, choose
from pipeline.config import Options
from pipeline.types import InputError

MAX_ITERATIONS = 200


class LogisticOptions(Options):
    """The grid of a logistic regression."""

    c_min: float = Field(default=1e-7, gt=0)
    """Smallest C, the inverse of the L2 strength on features of unit spread."""
    c_max: float = Field(default=1e2, gt=0)
    """Largest C."""
    c_count: int = Field(default=50, ge=1)
    """Values of C between the two, evenly spaced on a log scale."""
    max_iterations: int = Field(default=MAX_ITERATIONS, ge=1)
    """L-BFGS iterations per value of C."""

    def Cs(self) -> list[float]:
        """The grid."""
        return [float(C) for C in np.geomspace(self.c_min, self.c_max, self.c_count)]


class LinearProbeOptions(LogisticOptions):
    """Logistic regression on the penultimate activations."""

    kind: Literal["linear_probe"] = "linear_probe"


def logistic_probe(
    features: Mapping[str, Float[ndarray, "n h"]],
    labels: Mapping[str, Int[ndarray, " n"]],
    *,
    classes: int,
    Cs: Sequence[float] | None = None,
    max_iterations: int = MAX_ITERATIONS,
    selection: str = "val",
    refit: bool = False,
    on_fit: Callable[[int], None] = lambda _: None,
) -> ProbeFit:
    """Multinomial logistic regression with L2 strength 1/C for every C, one of which is chosen.

    ``features`` and ``labels`` hold "train", the selection split and any others. With ``refit``
    the path up to the chosen C is fitted again on training and selection rows together, since the
    warm start is part of the method. ``on_fit`` hears the number of every C that is done.
    """
    check_splits(features, labels, classes, selection)
    _refuse_absent_classes(labels["train"], classes)
    path = sorted(LinearProbeOptions().Cs() if Cs is None else Cs)
    models, iterations = logistic_path(
        features["train"], labels["train"], path, max_iterations, on_fit
    )

    def again(best: int) -> Linear:
        H = np.concatenate([features["train"], features[selection]])
        y = np.concatenate([labels["train"], labels[selection]])
        return logistic_path(H, y, path[: best + 1], max_iterations, on_fit)[0][-1]

    found = choose(models, features, labels, selection, again if refit else None)
    unfinished = sum(count >= max_iterations for count in iterations)
    stopped = f"{unfinished} of {len(path)} values of C stopped at {max_iterations} iterations"
    return ProbeFit(
        selected={"model": "logistic", "C": path[found.best]},
        model=found.model,
        scores=found.scores,
        strengths=[1.0 / C for C in path],
        curve=found.curve,
        certificate={
            "converged": iterations[found.best] < max_iterations,
            "iterations": iterations[found.best],
            "solver": "lbfgs",
            "precision": "float64",
        },
        notes=[*found.notes, *([stopped] if unfinished else [])],
    )


def logistic_path(
    H: Float[ndarray, "n h"],
    labels: Int[ndarray, " n"],
    Cs: Sequence[float],
    max_iterations: int,
    on_fit: Callable[[int], None] = lambda _: None,
) -> tuple[list[Linear], list[int]]:
    """One model a C, for the features as they are given, and the iterations each took."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    X = np.array(H, dtype=np.float64)
    spread = float(X.std())
    if spread == 0.0:
        raise InputError("every training row has the same features: there is nothing to fit.")
    mean = X.mean(axis=0)
    X -= mean
    X /= spread
    model = LogisticRegression(warm_start=True, max_iter=max_iterations)
    models, iterations = [], []
    for number, C in enumerate(Cs):
        model.C = C
        with warnings.catch_warnings():
            # Stopping at max_iterations is counted and reported, not printed for every C.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, labels)
        weights, bias = model.coef_ / spread, model.intercept_.copy()
        if len(weights) == 1:  # Of two classes scikit-learn keeps the second's log odds only.
            weights, bias = np.vstack([0.0 * weights, weights]), np.array([0.0, bias[0]])
        models.append(Linear(weights, bias - weights @ mean))
        iterations.append(int(model.n_iter_[0]))
        on_fit(number)
    return models, iterations


def _refuse_absent_classes(labels: Int[ndarray, " n"], classes: int) -> None:
    absent = sorted(set(range(classes)) - set(labels.tolist()))
    if absent or classes < 2:
        raise InputError(
            f"logistic regression needs training rows of each of two or more classes; of "
            f"{classes} classes these have none: {absent}."
        )
