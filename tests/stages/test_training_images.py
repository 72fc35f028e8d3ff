import numpy as np
import pytest
import torch

from pipeline.data.arrays import ArraySource
from pipeline.data.preprocess import PreprocessOptions
from pipeline.data.split import Split
from pipeline.stages import training_images
from pipeline.stages.training_images import joined, split_images, training_preprocess
from pipeline.types import InputError

RESIZED = PreprocessOptions(channels=1, resize=10, crop=8)


class Photographs:
    """Images of different widths that count how often they are decoded."""

    def __init__(self, n):
        rng = np.random.default_rng(0)
        self.pixels = [rng.integers(256, size=(12, 12 + i), dtype=np.uint8) for i in range(n)]
        self.decoded = 0

    def ids(self, rows):
        return [f"photo/{row}" for row in rows]

    def image(self, row):
        self.decoded += 1
        return self.pixels[row]


def photographs(n, name="train"):
    # Rows in another order than the source's, as seeded splits have them.
    return Split(name, Photographs(n), np.arange(n)[::-1].copy(), np.arange(n) % 2)


def test_a_small_split_is_decoded_once_and_a_large_one_at_every_call(monkeypatch):
    split, rows = photographs(5), np.array([3, 1])
    kept = split_images(split, RESIZED, keep=True)
    first, again = kept.load(rows), kept.load(rows)
    assert split.source.decoded == 6  # the first to know the size, then all
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    monkeypatch.setattr(training_images, "KEPT_BYTES", 10)
    lazy = split_images(photographs(5), RESIZED, keep=True, threads=3)
    assert all(torch.equal(a, b) for a, b in zip(first, lazy.load(rows), strict=True))
    assert lazy.load(np.array([], dtype=np.int64)) == []


def test_rows_are_positions_of_the_split():
    split = photographs(4)
    images = split_images(split, PreprocessOptions(channels=1))
    assert images.ids == ["photo/3", "photo/2", "photo/1", "photo/0"]
    expected = torch.from_numpy(split.source.pixels[3] / np.float32(255))
    torch.testing.assert_close(images.load(np.array([0]))[0][0], expected.float())


def test_random_boxes_are_cut_from_images_that_nothing_was_cropped_from():
    whole = training_preprocess(RESIZED, "resized_crop_flip")
    loaded = split_images(photographs(3), whole, keep=True).load(np.arange(3))
    assert [tuple(image.shape) for image in loaded] == [(1, 10, 11), (1, 10, 10), (1, 10, 10)]
    for augmentation in ("none", "crop", "crop_flip"):
        assert training_preprocess(RESIZED, augmentation) == RESIZED


def test_joined_rows_come_in_the_order_asked_for():
    first, second = (split_images(photographs(n), RESIZED) for n in (3, 2))
    both = joined(first, second)
    rows = np.array([4, 0, 3, 2])
    expected = [second.load([1])[0], first.load([0])[0], second.load([0])[0], first.load([2])[0]]
    assert all(torch.equal(a, b) for a, b in zip(both.load(rows), expected, strict=True))
    assert list(both.labels) == [*first.labels, *second.labels]
    assert both.ids == [*first.ids, *second.ids]


def test_feature_vectors_are_refused():
    source = ArraySource(np.zeros((3, 7), dtype=np.float32), "vectors")
    split = Split("train", source, np.arange(3), np.zeros(3, dtype=np.int64))
    with pytest.raises(InputError, match="feature vectors"):
        split_images(split, RESIZED).load(np.array([0]))
