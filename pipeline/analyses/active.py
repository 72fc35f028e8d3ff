"""Active learning on a pool of stored features: ask, reveal, ask again, without retraining."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import softmax
from torch import Tensor

from pipeline.analyses import acquisition
from pipeline.analyses.batch_query import query_batch
from pipeline.analyses.lookahead import LookAhead, rows_of
from pipeline.types import InputError

Oracle = Callable[[Sequence[int]], Sequence[int]]
"""Class numbers of some pool samples."""


@dataclass(frozen=True)
class View:
    """What a rule may look at: the pool under the labels so far, never a label to come."""

    state: LookAhead
    penultimate: Float[ndarray, "m h"] | None
    """Activations of the whole pool, for the rules that need them."""
    temperature: float
    """Scores become probabilities as softmax(scores / T)."""
    seed: int

    def probabilities(self, samples: Sequence[int]) -> Float[ndarray, "c k"]:
        """Of the classes, as the regression sees them now."""
        outputs = self.state.outputs()[list(samples)].numpy()
        found: ndarray = softmax(outputs / self.temperature, axis=1)
        return found

    def activations(self, samples: Sequence[int]) -> Float[ndarray, "c h"]:
        """Penultimate activations of some samples."""
        if self.penultimate is None:
            raise InputError("this rule compares penultimate activations, and the pool has none.")
        chosen: ndarray = self.penultimate[list(samples)]
        return chosen


Rule = Callable[[View, Sequence[int], int], list[int]]
"""``size`` of the candidates, as samples."""


def _at(candidates: Sequence[int], positions: Sequence[int]) -> list[int]:
    return [candidates[i] for i in positions]


def _k_center(view: View, candidates: Sequence[int], size: int) -> list[int]:
    centers = view.activations(view.state.labelled.tolist())
    return _at(candidates, acquisition.k_center(view.activations(candidates), centers, size))


def _badge(view: View, candidates: Sequence[int], size: int) -> list[int]:
    q, z = view.probabilities(candidates), view.activations(candidates)
    return _at(candidates, acquisition.badge(q, z, size, view.seed))


RULES: dict[str, Rule] = {
    "random": lambda view, c, size: _at(c, acquisition.random_choice(len(c), size, view.seed)),
    "entropy": lambda view, c, size: _at(c, acquisition.entropy(view.probabilities(c), size)),
    "margin": lambda view, c, size: _at(c, acquisition.margin(view.probabilities(c), size)),
    "badge": _badge,
    "k_center": _k_center,
    "mlmoc": lambda view, c, size: query_batch(view.state, c, size, "mlmoc", view.temperature),
    "emoc": lambda view, c, size: query_batch(view.state, c, size, "emoc", view.temperature),
}
"""Every rule by name; the last two look ahead."""


@dataclass(frozen=True)
class Round:
    """The state after some labels have come."""

    state: LookAhead
    asked: list[int]
    """Samples whose labels came last."""


def active_rounds(
    start: LookAhead,
    rule: Rule,
    oracle: Oracle,
    *,
    batch: int,
    rounds: int,
    candidates: int | None = None,
    penultimate: Float[ndarray, "m h"] | None = None,
    temperature: Callable[[LookAhead], float] = lambda state: 1.0,
    seed: int = 0,
) -> Iterator[Round]:
    """Ask for ``batch`` labels, ``rounds`` times, beginning with the start itself.

    ``candidates`` bounds how many unlabelled samples a rule sees in a round, drawn by chance. The
    temperature is taken from the state, so that it may follow the labels.
    """
    state = start
    yield Round(state, state.labelled.tolist())
    for number in range(rounds):
        generator = np.random.default_rng((seed, number))
        left = np.setdiff1d(np.arange(len(state.base)), state.labelled.numpy())
        if candidates is not None and candidates < len(left):
            left = np.sort(generator.choice(left, candidates, replace=False))
        view = View(state, penultimate, temperature(state), int(generator.integers(2**31)))
        asked = rule(view, left.tolist(), batch)
        state = state.reveal(asked, oracle(asked))
        yield Round(state, asked)


def outputs_elsewhere(
    state: LookAhead, K_cross: Float[Tensor, "M N"], base: Float[Tensor, "m k"]
) -> Float[Tensor, "m k"]:
    """The regression's outputs on samples outside the pool, from their kernel with all of it."""
    rows = rows_of(state.labelled, state.kernel.rows_per_sample)
    return base + (K_cross.double()[:, rows] @ state.dual_weights()).reshape(base.shape)


def labels_of(labels: Int[ndarray, " m"]) -> Oracle:
    """The oracle that knows every label already, for experiments."""
    return lambda samples: labels[list(samples)].tolist()
