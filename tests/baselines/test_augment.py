import numpy as np
import pytest
import torch

from pipeline.baselines.augment import (
    CROP,
    DRAWS,
    FLIP,
    augmented,
    epoch_draws,
    epoch_order,
    sample_keys,
    usual_augmentation,
)

IDS = [f"image/{i}" for i in range(2000)]


def test_draws_depend_on_seed_epoch_and_id_and_on_nothing_else():
    keys = sample_keys(IDS)
    draws = epoch_draws(keys, 1, 2)
    np.testing.assert_array_equal(epoch_draws(keys[[7, 3]], 1, 2), draws[[7, 3]])
    for seed, epoch in ((1, 3), (2, 2), (2, 1)):
        assert not (epoch_draws(keys, seed, epoch) == draws).any()
    assert len(set(keys.tolist())) == len(IDS)


def test_draws_are_uniform_and_uncorrelated():
    draws = epoch_draws(sample_keys(IDS), 0, 0)
    assert draws.shape == (2000, DRAWS)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    np.testing.assert_allclose(draws.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(draws.var(0), 1 / 12, atol=0.01)
    correlations = np.corrcoef(draws.T) - np.eye(DRAWS)
    assert np.abs(correlations).max() < 0.11
    next_epoch = epoch_draws(sample_keys(IDS), 0, 1)
    assert abs(np.corrcoef(draws[:, 0], next_epoch[:, 0])[0, 1]) < 0.1


def test_every_epoch_visits_every_sample_once_in_another_order():
    keys = sample_keys(IDS)
    orders = [epoch_order(epoch_draws(keys, 0, epoch)) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order) == list(range(2000))
    assert (orders[0] != orders[1]).mean() > 0.9


def test_a_padded_crop_is_a_window_of_the_padded_image_flipped_or_not():
    image = torch.arange(1.0, 3 * 8 * 8 + 1).reshape(3, 8, 8)
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4))
    for seed in range(20):
        draws = epoch_draws(sample_keys(["a"]), seed, 0)
        found = augmented([image], draws, "crop_flip", (8, 8))[0]
        top, left = int(draws[0, CROP] * 9), int(draws[0, CROP + 1] * 9)
        window = padded[:, top : top + 8, left : left + 8]
        torch.testing.assert_close(found, window.flip(-1) if draws[0, FLIP] < 0.5 else window)
        unflipped = augmented([image], draws, "crop", (8, 8))[0]
        torch.testing.assert_close(unflipped, window)


def test_resized_crops_have_the_asked_size_whatever_the_image():
    images = [torch.rand(3, 40, 60), torch.rand(3, 33, 21), torch.ones(3, 5, 200)]
    draws = epoch_draws(sample_keys(["a", "b", "c"]), 0, 0)
    found = augmented(images, draws, "resized_crop_flip", (16, 12))
    assert found.shape == (3, 3, 16, 12)
    torch.testing.assert_close(found[2], torch.ones(3, 16, 12))
    alone = augmented(images[1:2], draws[1:2], "resized_crop_flip", (16, 12))
    torch.testing.assert_close(alone[0], found[1])


def test_no_augmentation_leaves_images_as_they_are():
    images = torch.rand(2, 3, 8, 8)
    draws = epoch_draws(sample_keys(["a", "b"]), 0, 0)
    torch.testing.assert_close(augmented(list(images), draws, "none", (8, 8)), images)


@pytest.mark.parametrize(
    ("size", "kind"), [((32, 32), "crop_flip"), ((224, 224), "resized_crop_flip")]
)
def test_small_images_are_padded_and_large_ones_resized(size, kind):
    assert usual_augmentation(size) == kind
