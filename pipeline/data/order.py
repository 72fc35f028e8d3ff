"""Seeded random orders in which every prefix is stratified."""

import zlib

import numpy as np
from numpy.typing import NDArray

from pipeline.data.split import Rows


def stream(seed: int, purpose: str) -> np.random.Generator:
    """A generator for one purpose, so that one seed drives several independent choices."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def random_order(n: int, rng: np.random.Generator) -> Rows:
    """A random permutation of 0 … n−1.

    It sorts uniform numbers, whose stream NumPy keeps between versions, unlike
    ``permutation``'s.
    """
    return np.argsort(rng.random(n), kind="stable").astype(np.int64)


def stratified_order(strata: Rows, rng: np.random.Generator) -> Rows:
    """A random permutation (n,) whose every prefix holds each stratum in proportion, ±1.

    Row number i of its stratum's own random order gets the key (i + u)/n_stratum, u ~ U(0, 1),
    and rows are sorted by key: the first share q of the order takes q·n_stratum of each stratum.
    """
    keys = stratified_keys(strata, rng)
    return np.argsort(keys, kind="stable").astype(np.int64)


def stratified_keys(strata: Rows, rng: np.random.Generator) -> NDArray[np.float64]:
    """The keys in [0, 1) by which :func:`stratified_order` sorts.

    Rows with a key under q are an exact share q of every stratum whose size times q is whole.
    """
    keys = np.empty(len(strata))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        ranks = np.empty(len(members))
        ranks[random_order(len(members), rng)] = np.arange(len(members))
        keys[members] = (ranks + rng.random(len(members))) / len(members)
    return keys
