import numpy as np
import pytest
from scipy.special import softmax

from pipeline.analyses.acquisition import badge, entropy, k_center, margin, random_choice
from pipeline.types import InputError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_entropy_takes_the_flattest_predictions():
    q = np.array([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]])
    assert entropy(q, 3) == [1, 2, 0]


def test_margin_takes_the_closest_pair_of_classes():
    q = np.array([[0.5, 0.3, 0.2], [0.45, 0.44, 0.11], [0.9, 0.05, 0.05]])
    assert margin(q, 2) == [1, 0]


def test_a_margin_of_one_class_is_refused():
    with pytest.raises(InputError, match="two classes"):
        margin(np.ones((3, 1)), 1)


def test_random_choices_follow_the_seed_and_differ():
    assert random_choice(50, 10, 1) == random_choice(50, 10, 1) != random_choice(50, 10, 2)
    assert len(set(random_choice(50, 50, 0))) == 50


def test_k_center_is_the_greedy_search_written_out(rng):
    rows, centers = rng.normal(size=(30, 4)), rng.normal(size=(3, 4))
    known, expected = list(centers), []
    for _ in range(6):
        distances = [min(np.linalg.norm(row - c) for c in known) for row in rows]
        expected.append(int(np.argmax(distances)))
        known.append(rows[expected[-1]])
    assert k_center(rows, centers, 6) == expected


def test_k_center_without_centres_starts_in_the_middle():
    rows = np.array([[0.0], [10.0], [5.2], [4.0]])
    assert k_center(rows, np.empty((0, 1)), 2) == [2, 0]


def test_badge_avoids_samples_the_model_is_sure_of(rng):
    z = rng.normal(size=(40, 5))
    logits = rng.normal(size=(40, 3))
    logits[:30, 0] += 50
    chosen = badge(softmax(logits, axis=1), z, 8, seed=0)
    assert len(set(chosen)) == 8
    assert set(chosen[1:]) <= set(range(30, 40))


@pytest.mark.parametrize("size", [0, 6])
def test_more_than_there_is_cannot_be_asked_for(size):
    with pytest.raises(InputError, match=r"1 … 5"):
        random_choice(5, size, 0)
