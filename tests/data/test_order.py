import numpy as np
import pytest

from pipeline.data.order import random_order, stratified_order, stream


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_prefix_holds_every_stratum_in_proportion(seed):
    strata = np.repeat([0, 1, 2], [50, 30, 20])
    order = stratified_order(strata, stream(seed, "test"))
    assert sorted(order) == list(range(100))
    for m in range(1, 101):
        counts = np.bincount(strata[order[:m]], minlength=3)
        assert np.all(np.abs(counts - m * np.array([0.5, 0.3, 0.2])) <= 2)


def test_a_tenth_of_whole_strata_is_exact():
    strata = np.repeat(np.arange(34), 130)
    order = stratified_order(strata, stream(0, "test"))
    assert set(np.bincount(strata[order[:442]])) == {13}


def test_order_depends_on_seed_and_purpose_only():
    strata = np.zeros(40, dtype=np.int64)
    order = stratified_order(strata, stream(3, "a"))
    assert np.array_equal(order, stratified_order(strata, stream(3, "a")))
    assert not np.array_equal(order, stratified_order(strata, stream(4, "a")))
    assert not np.array_equal(order, stratified_order(strata, stream(3, "b")))


def test_random_order_is_a_permutation_for_any_length():
    for n in (0, 1, 7):
        assert sorted(random_order(n, stream(0, "x"))) == list(range(n))


def test_positions_are_uniform_over_seeds():
    """The row that comes first is any row equally often: the order is no fixed pattern."""
    strata = np.repeat([0, 1], [6, 3])
    firsts = [int(stratified_order(strata, stream(seed, "x"))[0]) for seed in range(900)]
    counts = np.bincount(firsts, minlength=9)
    # First of its stratum is each row alike; the stratum with more rows has the smaller keys.
    assert counts[:6].min() > 0.6 * counts[:6].mean()
    assert counts[6:].min() > 0.6 * counts[6:].mean()
