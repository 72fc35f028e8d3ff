import pickle

import numpy as np
import pytest

from pipeline.data.arrays import ArchivedArray, ArraySource
from pipeline.types import InputError


def test_archived_and_in_memory_arrays_agree(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", train_images=pixels)
    archived = ArraySource(ArchivedArray(tmp_path / "x.npz", "train_images"), "t")
    memory = ArraySource(pixels, "t")
    rows = np.array([3, 0])
    assert archived.ids(rows) == memory.ids(rows) == ["t:3", "t:0"]
    assert archived.fingerprints(rows) == memory.fingerprints(rows)
    assert np.array_equal(archived.image(3), pixels[3])
    assert len(pickle.dumps(archived)) < 500


def test_fingerprints_tell_shapes_and_types_apart():
    flat = np.zeros((1, 16), dtype=np.float32)
    rows = np.array([0])
    images = [np.zeros((1, 4, 4), np.uint8), np.zeros((1, 2, 8), np.uint8), flat]
    assert len({ArraySource(array, "x").fingerprints(rows)[0] for array in images}) == 3


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 4, 4), np.float32),
        np.zeros((3, 4, 4, 2), np.uint8),
        np.zeros(3, np.uint8),
        np.array([["a"]]),
    ],
)
def test_other_arrays_are_refused_with_their_shape(array):
    with pytest.raises(InputError, match="must hold uint8 images"):
        ArraySource(array, "x")


def test_features_come_as_float32_vectors():
    source = ArraySource(np.array([[1, 2, 3]]), "x")
    assert source.image(0).dtype == np.float32
    assert source.image(0).tolist() == [1.0, 2.0, 3.0]


def test_a_damaged_archive_is_refused_by_name(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(4000))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"x\.npz"):
        ArchivedArray(path, "a").read()
