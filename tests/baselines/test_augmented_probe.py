import numpy as np
import pytest
import torch
from torch import nn

from pipeline.baselines.augment import augmented, epoch_draws, sample_keys
from pipeline.baselines.augmented_probe import augmented_activations
from pipeline.baselines.training import Images


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.randn(3, 12, 12, generator=generator) for _ in range(7)]
    return Images(
        lambda rows: [pictures[i] for i in rows], np.zeros(7), [f"s{i}" for i in range(7)]
    )


def activations(images, **changes):
    torch.manual_seed(0)
    options = {"augmentation": "crop_flip", "size": (12, 12), "seed": 3, "number": 1} | changes
    return augmented_activations(Small(), "head", images, **options)


def test_rows_are_the_head_s_inputs_for_the_views_that_seed_and_pass_draw(images):
    torch.manual_seed(0)
    module = Small().eval()
    draws = epoch_draws(sample_keys(images.ids), 3, 1)
    views = augmented(images.load(range(7)), draws, "crop_flip", (12, 12))
    expected = module.body(views).mean((2, 3)).detach()
    np.testing.assert_allclose(activations(images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_do_not_change_the_rows(images, batch_size):
    found = activations(images, batch_size=batch_size)
    assert found.shape == (7, 4)
    np.testing.assert_allclose(found, activations(images), rtol=1e-5, atol=1e-6)


def test_every_pass_and_every_seed_has_views_of_its_own(images):
    assert not np.allclose(activations(images), activations(images, number=2))
    assert not np.allclose(activations(images), activations(images, seed=4))


def test_without_augmentation_every_pass_is_the_same(images):
    first, second = (activations(images, augmentation="none", number=i) for i in (0, 1))
    assert np.array_equal(first, second)
