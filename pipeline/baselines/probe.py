"""What the two linear probes share: a path of linear models, the choice among them, the record.

Selection reads the labels of the validation split and no other; the remaining splits are scored
once the choice is made. Exact ties go to the stronger regularization, and nothing else does: a
baseline gets its best setting.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.types import InputError


@dataclass(frozen=True)
class Linear:
    """An affine map from features to scores."""

    weights: Float[ndarray, "k h"]
    bias: Float[ndarray, " k"]

    def scores(self, features: Float[ndarray, "n h"]) -> Float[ndarray, "n k"]:
        """Scores in float64."""
        return features.astype(np.float64) @ self.weights.T + self.bias

    def merit(self, features: Float[ndarray, "n h"], labels: ndarray) -> float:
        """Accuracy; for real targets of shape (n, k) the negative mean squared error."""
        scores = self.scores(features)
        if labels.ndim == 2:
            return -float(np.mean((scores - labels) ** 2))
        return float(np.mean(scores.argmax(axis=1) == labels))


@dataclass(frozen=True)
class ProbeFit:
    """A linear probe after selection: the chosen model, its scores, and the whole path."""

    selected: dict[str, Any]
    """What was chosen, for ``metrics.json``."""
    model: Linear
    scores: dict[str, Float[ndarray, "n k"]]
    """Scores of the chosen model on every split but train."""
    strengths: list[float]
    """The L2 strengths of the path, from strong to weak: relative ridges, or 1/C."""
    curve: dict[str, list[float]]
    """Accuracy (real targets: negative mean squared error) per split along the strengths."""
    certificate: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """The content of ``fit.json``."""
        return {
            "selected": self.selected,
            "certificate": self.certificate,
            "ridge_curve": {"ridges": self.strengths, "splits": self.curve},
            "notes": self.notes,
        }


@dataclass(frozen=True)
class Choice:
    """The best of a path of models on the selection split."""

    best: int
    scores: dict[str, Float[ndarray, "n k"]]
    model: Linear
    curve: dict[str, list[float]]
    notes: list[str]


def choose(
    models: Sequence[Linear],
    features: Mapping[str, Float[ndarray, "n h"]],
    labels: Mapping[str, ndarray],
    selection: str,
    refit: Callable[[int], Linear] | None,
) -> Choice:
    """The model of most merit on the selection split; the other splits are scored afterwards.

    Models come from the strongest regularization to the weakest, so the first best wins a tie.
    ``refit`` makes the model of that index again on training and selection rows; the selection
    split's scores stay those of the model that did not see it.
    """
    held_out = [model.merit(features[selection], labels[selection]) for model in models]
    best = int(np.argmax(held_out))
    final = refit(best) if refit else models[best]
    others = [split for split in features if split not in ("train", selection)]
    scores = {selection: models[best].scores(features[selection])}
    scores |= {split: final.scores(features[split]) for split in others}
    curve = {selection: held_out}
    curve |= {s: [model.merit(features[s], labels[s]) for model in models] for s in others}
    at_edge = len(models) > 1 and best in (0, len(models) - 1)
    notes = ["the chosen strength lies at the edge of its grid: widen the grid"] if at_edge else []
    return Choice(best, scores, final, curve, notes)


def check_splits(
    features: Mapping[str, ndarray], labels: Mapping[str, ndarray], classes: int, selection: str
) -> None:
    """Refuse missing splits, labels out of range and features that are not finite."""
    for split in ("train", selection):
        if split not in features or split not in labels:
            raise InputError(f"a linear probe needs the split {split!r}; found {list(features)}.")
    for split, rows in features.items():
        if not np.isfinite(rows).all():
            raise InputError(f"the penultimate features of {split} are not all finite.")
        if len(rows) != len(labels[split]):
            raise InputError(
                f"{split} has {len(rows)} feature rows and {len(labels[split])} labels."
            )
        if labels[split].ndim == 1 and not np.isin(labels[split], np.arange(classes)).all():
            raise InputError(f"labels of {split} must lie in 0 … {classes - 1}.")
