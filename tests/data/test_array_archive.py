from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.data.array_archive import ArraysOptions, build
from pipeline.data.preprocess import Preprocess, load_batch
from pipeline.types import InputError


@pytest.fixture
def save(tmp_path):
    def write(**changes):
        rng = np.random.default_rng(0)
        arrays = {}
        for name, n in (("train", 20), ("test", 6), ("ood_far", 4)):
            arrays[f"{name}_images"] = rng.integers(0, 256, (n, 5, 5), dtype=np.uint8)
            arrays[f"{name}_labels"] = np.arange(n, dtype=np.int32) % 3
        arrays |= changes
        path = tmp_path / "set.npz"
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
        return str(path)

    return write


def test_arrays_become_splits(save):
    built = build(ArraysOptions(path=save(), preprocess={"channels": 1}))
    sizes = {name: len(split) for name, split in built.splits.items()}
    assert sizes == {"train": 18, "val": 2, "id_test": 6, "ood_far": 4}
    assert built.classes == ["0", "1", "2"]
    assert build(ArraysOptions(path=save(), classes=("a", "b", "c"))).classes == ["a", "b", "c"]


def test_float_labels_are_a_regression_on_features(save):
    rng = np.random.default_rng(1)
    changes = {"ood_far_images": None, "ood_far_labels": None, "train_images": None}
    changes |= {"test_images": None, "train_features": rng.normal(size=(20, 3))}
    changes |= {"test_features": rng.normal(size=(6, 3))}
    changes |= {"train_labels": rng.normal(size=20), "test_labels": rng.normal(size=(6, 1))}
    built = build(ArraysOptions(path=save(**changes)))
    assert built.classes == []
    assert built.splits["train"].labels.shape == (18, 1)
    batch = load_batch(
        built.splits["id_test"], slice(0, 4), Preprocess(ArraysOptions(path="x").preprocess)
    )
    assert batch.shape == (4, 3)
    with pytest.raises(InputError, match="those of train"):
        build(
            ArraysOptions(
                path=save(
                    **changes, **{"val_features": np.zeros((2, 3)), "val_labels": np.zeros(2, int)}
                )
            )
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": None}, "It should be"),
        ({"train_images": None}, "one of train_images and train_features"),
        ({"extra_labels": np.zeros(3, int)}, "It should be"),
        ({"test_labels": np.zeros(5, int)}, "6 rows in test_images, 5 in test_labels"),
        ({"train_labels": np.array(["a"] * 20)}, "whole numbers"),
        ({"train_labels": np.full(20, np.nan)}, "finite"),
        ({"test_labels": np.full(6, 3)}, "outside 0 … 2"),
        ({"train_labels": np.full(20, 2)}, "no sample of 2 of 3 classes: 0, 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(save, changes, message):
    with pytest.raises(InputError, match=message):
        build(ArraysOptions(path=save(**changes)))


def test_features_that_are_not_finite_are_refused_with_their_count(save):
    features = np.ones((20, 3))
    features[4:7] = np.nan
    path = save(train_images=None, train_features=features)
    with pytest.raises(
        InputError, match=r"train_features holds NaN .* in 3 of 20 rows \(first: row 4"
    ):
        build(ArraysOptions(path=path))


def test_a_negative_training_label_is_blamed_on_the_training_split(save):
    labels = np.arange(20) % 3 - 1
    with pytest.raises(InputError, match=r"split train: 7 label\(s\) outside 0 … 1, such as -1"):
        build(ArraysOptions(path=save(train_labels=labels), holdout=0))


def test_a_missing_or_other_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no file at"):
        build(ArraysOptions(path=str(tmp_path / "x.npz")))
    for data in (b"", b"PK torn", b"\x93NUMPY"):
        (tmp_path / "y.npz").write_bytes(data)
        with pytest.raises(InputError, match="no NumPy archive"):
            build(ArraysOptions(path=str(tmp_path / "y.npz")))
    np.save(tmp_path / "z.npy", np.zeros(3))
    with pytest.raises(InputError, match="no NumPy archive"):
        build(ArraysOptions(path=str(tmp_path / "z.npy")))


def test_the_real_mnist_archive(real_data):
    built = build(ArraysOptions(path=str(real_data / "mnist" / "mnist_12k.npz")))
    assert {n: len(s) for n, s in built.splits.items()} == {
        "train": 9000,
        "val": 1000,
        "id_test": 2000,
    }
    assert len(built.classes) == 10


def test_an_archive_that_unfolds_beyond_the_machines_memory_is_refused(save, monkeypatch):
    images = np.random.default_rng(1).integers(0, 256, (20, 100, 100), dtype=np.uint8)
    path = save(train_images=images)
    build(ArraysOptions(path=path))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=100_000))
    with pytest.raises(InputError, match=r"train_images.npy in .* decompression bomb"):
        build(ArraysOptions(path=path))
