"""Which samples to ask for, by rules that look at the present model only.

Rules to set beside the look-ahead: chance, the two margins of uncertainty, BADGE (Ash et al. 2020,
"Deep batch active learning by diverse, uncertain gradient lower bounds") and k-center (Sener and
Savarese 2018, "A core-set approach"). Each gives positions among the candidates.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.types import InputError


def random_choice(candidates: int, size: int, seed: int) -> list[int]:
    """``size`` of the candidates by chance."""
    checked_size(size, candidates)
    return np.random.default_rng(seed).permutation(candidates)[:size].tolist()


def entropy(probabilities: Float[ndarray, "c k"], size: int) -> list[int]:
    """Those of the largest entropy, in nats, of the predicted classes."""
    checked_size(size, len(probabilities))
    q = np.clip(probabilities, np.finfo(np.float64).tiny, None)
    return _largest(-(q * np.log(q)).sum(axis=1), size)


def margin(probabilities: Float[ndarray, "c k"], size: int) -> list[int]:
    """Those whose two likeliest classes are closest."""
    checked_size(size, len(probabilities))
    if probabilities.shape[1] < 2:
        raise InputError("a margin needs two classes or more (k = 1 was given).")
    ordered = np.sort(probabilities, axis=1)
    return _largest(ordered[:, -2] - ordered[:, -1], size)


def badge(
    probabilities: Float[ndarray, "c k"],
    penultimate: Float[ndarray, "c h"],
    size: int,
    seed: int,
) -> list[int]:
    """k-means++ seeds of the head's gradients (q − e_ŷ) ⊗ z at the most likely label ŷ."""
    from sklearn.cluster import kmeans_plusplus

    checked_size(size, len(probabilities))
    errors = np.array(probabilities, dtype=np.float32)
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1.0
    gradients = np.einsum("ck,ch->ckh", errors, penultimate.astype(np.float32))
    flat = gradients.reshape(len(errors), -1)
    _, chosen = kmeans_plusplus(flat, size, random_state=seed, n_local_trials=1)
    return chosen.tolist()


def k_center(
    candidates: Float[ndarray, "c h"], centers: Float[ndarray, "n h"], size: int
) -> list[int]:
    """The farthest candidate from all centres, one after the other; each becomes a centre.

    Without a first centre, the one nearest the candidates' mean is taken. Distances are Euclidean
    between features; features of the kernel give the kernel's own distance.
    """
    checked_size(size, len(candidates))
    rows = candidates.astype(np.float64)
    chosen: list[int] = []
    if len(centers):
        nearest = np.min([_squared(rows, center) for center in centers.astype(np.float64)], axis=0)
    else:
        chosen.append(int(_squared(rows, rows.mean(axis=0)).argmin()))
        nearest = _squared(rows, rows[chosen[0]])
    while len(chosen) < size:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _squared(rows, rows[chosen[-1]]))
    return chosen


def checked_size(size: int, candidates: int) -> None:
    """Refuse to ask for nothing, or for more than there is."""
    if not 1 <= size <= candidates:
        raise InputError(f"1 … {candidates} candidates can be asked for, found {size}.")


def _squared(rows: Float[ndarray, "c h"], center: Float[ndarray, " h"]) -> Float[ndarray, " c"]:
    difference = rows - center
    return np.einsum("ch,ch->c", difference, difference)


def _largest(scores: Float[ndarray, " c"], size: int) -> list[int]:
    """Positions of the largest scores, the first of equals first."""
    return np.argsort(-scores, kind="stable")[:size].tolist()
