"""Ridge regression of one-hot targets on the penultimate activations, in closed form.

It answers the targets that the kernel answers, with the same loss, so that it differs from the
eNTK in the features alone.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import scipy.linalg
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field

from pipeline.baselines.probe import Linear, ProbeFit, check_splits, choose
from pipeline.config import Options
from pipeline.types import InputError

BLOCK_ROWS = 4096
"""Rows turned into float64 at a time: 64 MiB at 2,048 features."""


class RidgeProbeOptions(Options):
    """Ridge regression of one-hot targets on the penultimate activations."""

    kind: Literal["linear_probe_ridge"] = "linear_probe_ridge"
    ridge_min: float = Field(default=1e-7, gt=0)
    """Smallest ridge, relative to the mean squared norm of a centred feature row."""
    ridge_max: float = Field(default=1e4, gt=0)
    """Largest ridge, in the same unit."""
    ridge_count: int = Field(default=67, ge=1)
    """Ridges between the two, evenly spaced on a log scale."""

    def ridges(self) -> list[float]:
        """The grid."""
        return [float(r) for r in np.geomspace(self.ridge_min, self.ridge_max, self.ridge_count)]


def ridge_probe(
    features: Mapping[str, Float[ndarray, "n h"]],
    labels: Mapping[str, ndarray],
    *,
    classes: int,
    ridges: Sequence[float] | None = None,
    selection: str = "val",
    refit: bool = False,
) -> ProbeFit:
    """Minimizer of ‖(H − h̄)W − (Y − ȳ)‖² + β‖W‖² for every β, one of which is chosen.

    ``features`` and ``labels`` hold "train", the selection split and any others; labels are
    int64 (n,), or float64 (n, k) of a regression. Ridges are relative to the mean squared norm of
    a centred feature row, which is the mean of the diagonal of the probe's kernel. With ``refit``
    the chosen ridge is fitted again on training and selection rows together.
    """
    check_splits(features, labels, classes, selection)
    path = sorted(RidgeProbeOptions().ridges() if ridges is None else ridges, reverse=True)

    def fit(names: Sequence[str], betas: Sequence[float]) -> list[Linear]:
        Y = np.concatenate([_targets(labels[name], classes) for name in names])
        return ridge_path([features[name] for name in names], Y, betas)

    def again(best: int) -> Linear:
        return fit(["train", selection], [path[best]])[0]

    found = choose(fit(["train"], path), features, labels, selection, again if refit else None)
    return ProbeFit(
        selected={"model": "ridge", "ridge": path[found.best]},
        model=found.model,
        scores=found.scores,
        strengths=path,
        curve=found.curve,
        certificate={"converged": True, "solver": "eigh", "precision": "float64"},
        notes=found.notes,
    )


def ridge_path(
    H: Sequence[Float[ndarray, "n h"]], Y: Float[ndarray, "n k"], ridges: Sequence[float]
) -> list[Linear]:
    """One model a ridge, from one eigendecomposition of the centred HᵀH.

    ``H`` holds the rows in parts, in the order of ``Y``.
    """
    blocks = [part[i : i + BLOCK_ROWS] for part in H for i in range(0, len(part), BLOCK_ROWS)]
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / len(Y)
    target_mean = Y.mean(axis=0)
    HtH, HtY = np.zeros((len(mean), len(mean))), np.zeros((len(mean), Y.shape[1]))
    start = 0
    for block in blocks:
        centred = block.astype(np.float64) - mean
        HtH += centred.T @ centred
        HtY += centred.T @ (Y[start : start + len(block)] - target_mean)
        start += len(block)
    eigenvalues, Q = scipy.linalg.eigh(HtH)
    eigenvalues = np.maximum(eigenvalues, 0.0)  # Rounding leaves tiny negative ones.
    scale = eigenvalues.sum() / len(Y)
    if scale == 0.0:
        raise InputError("every training row has the same features: there is nothing to fit.")
    QtHtY = Q.T @ HtY
    models = []
    for ridge in ridges:
        weights = (Q @ (QtHtY / (eigenvalues + ridge * scale)[:, None])).T
        models.append(Linear(weights, target_mean - weights @ mean))
    return models


def _targets(labels: ndarray, classes: int) -> ndarray:
    return labels if labels.ndim == 2 else np.eye(classes)[labels]
