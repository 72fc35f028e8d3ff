import io

import numpy as np
import pytest
from PIL import Image

from pipeline.config import validated
from pipeline.data import cifar10_shifts
from pipeline.data.cifar10_shifts import CLASSES, Cifar10ShiftsOptions, build
from pipeline.data.preprocess import Preprocess, load_batch
from pipeline.types import InputError


def images(n, seed, size=32):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.fixture
def copies(tmp_path, write_parquet, jpeg, monkeypatch):
    """A small copy of every set; severities of 20 rows."""
    monkeypatch.setattr(cifar10_shifts, "SEVERITY_ROWS", 20)
    for i, (name, n) in enumerate((("train", 60), ("test", 20))):
        encoded = [jpeg(1000 * i + k, (32, 32)) for k in range(n)]
        labels = {"label": [k % 10 for k in range(n)]}
        write_parquet(tmp_path / "cifar" / f"{name}-00000-of-00001.parquet", encoded, labels)
    (tmp_path / "new").mkdir()
    np.save(tmp_path / "new/cifar10.1_v6_data.npy", images(10, 1))
    np.save(tmp_path / "new/cifar10.1_v6_labels.npy", np.arange(10, dtype=np.int32))
    (tmp_path / "c").mkdir()
    np.save(tmp_path / "c/fog.npy", images(100, 2))
    np.save(tmp_path / "c/labels.npy", np.tile(np.arange(10, dtype=np.uint8), 10))
    (tmp_path / "stl").mkdir()
    images(20, 3, 96).transpose(0, 3, 2, 1).tofile(tmp_path / "stl/test_X.bin")
    np.tile(np.arange(1, 11, dtype=np.uint8), 2).tofile(tmp_path / "stl/test_y.bin")
    return tmp_path


def options(copies, **changes):
    given = {
        "path": str(copies / "cifar"),
        "cifar10_1": str(copies / "new"),
        "cifar10_c": str(copies / "c"),
        "corruptions": ["fog"],
        "severity": 2,
        "stl10": str(copies / "stl"),
    }
    return validated(Cifar10ShiftsOptions, given | changes, "test")


def test_every_copy_becomes_an_ood_split(copies):
    built = build(options(copies))
    sizes = {name: len(split) for name, split in built.splits.items()}
    assert sizes == {
        "train": 54,
        "val": 6,
        "id_test": 20,
        "ood_cifar10_1": 10,
        "ood_stl10": 18,
        "ood_fog": 20,
    }
    batch = load_batch(built.splits["ood_stl10"], slice(3), Preprocess(options(copies).preprocess))
    assert batch.shape == (3, 3, 32, 32)


def test_stl10_is_read_in_its_own_byte_order_under_cifar10s_labels(copies):
    split = build(options(copies)).splits["ood_stl10"]
    expected = images(20, 3, 96)
    theirs = ["airplane", "bird", "automobile", "cat", "deer", "dog", "horse", "", "ship", "truck"]
    for row, label in zip(split.rows, split.labels, strict=True):
        assert np.array_equal(split.source.image(int(row)), expected[row])
        assert CLASSES[label] == theirs[row % 10]


def test_a_corruption_is_taken_at_its_severity(copies):
    split = build(options(copies)).splits["ood_fog"]
    expected = images(100, 2)[20:40]
    found = {split.source.image(int(row)).tobytes() for row in split.rows}
    assert found == {image.tobytes() for image in expected}
    assert split.ids[0].startswith("fog_2:")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corruptions": ["snow"]}, r"no snow\.npy; it has fog"),
        ({"corruptions": []}, "cifar10_c and corruptions go together"),
        ({"cifar10_1": "/nowhere"}, "expected a folder at /nowhere"),
        (
            {"cifar10_1": None, "cifar10_c": None, "corruptions": [], "stl10": None},
            "give one or more of",
        ),
    ],
)
def test_what_is_missing_is_named(copies, changes, message):
    with pytest.raises(InputError, match=message):
        build(options(copies, **changes))


def test_a_cut_file_is_refused(copies):
    (copies / "stl/test_X.bin").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="is cut"):
        build(options(copies))
    np.save(copies / "c/labels.npy", np.zeros(7, dtype=np.uint8))
    with pytest.raises(InputError, match="must have 100 rows each"):
        build(options(copies, stl10=None))


def _pixels(encoded):
    return np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))


def _copied_into_cifar10_1(copies, numbers, jpeg):
    """CIFAR-10.1 made of the images with these numbers, decoded."""
    pixels = np.stack([_pixels(jpeg(number, (32, 32))) for number in numbers])
    np.save(copies / "new/cifar10.1_v6_data.npy", pixels)
    np.save(copies / "new/cifar10.1_v6_labels.npy", np.zeros(len(numbers), dtype=np.int32))


def test_copies_in_another_format_leave_the_training_split(copies, jpeg):
    before = build(options(copies))
    _copied_into_cifar10_1(copies, [3, 4, 5, 999_999], jpeg)
    built = build(options(copies, duplicates="drop"))
    names = set(built.splits["train"].ids) | set(built.splits["val"].ids)
    assert len(before.splits["train"]) + len(before.splits["val"]) == 60
    assert names == {f"train-00000-of-00001.parquet:{i}" for i in range(60) if i not in (3, 4, 5)}
    assert len(built.splits["ood_cifar10_1"]) == 4


def test_copies_in_another_format_stop_where_asked(copies, jpeg):
    _copied_into_cifar10_1(copies, [3], jpeg)
    message = r"share 1 sample\(s\): train-00000-of-00001\.parquet:3 is cifar10\.1:0"
    with pytest.raises(InputError, match=message):
        build(options(copies, duplicates="stop", holdout=0))


def test_a_corruption_that_leaves_a_test_image_as_it_is_keeps_it(copies, jpeg):
    fog = images(100, 2)
    fog[20:40] = [_pixels(jpeg(1000 + k, (32, 32))) for k in range(20)]
    np.save(copies / "c/fog.npy", fog)
    for duplicates in ("drop", "stop"):
        built = build(options(copies, duplicates=duplicates))
        assert len(built.splits["ood_fog"]) == len(built.splits["id_test"]) == 20


@pytest.mark.parametrize(
    "labels", [np.array(["cat"] * 10), np.eye(10, dtype=np.int64), np.arange(10) + 0.5]
)
def test_labels_that_are_no_whole_numbers_are_refused_with_their_file(copies, labels):
    np.save(copies / "new/cifar10.1_v6_labels.npy", labels)
    with pytest.raises(InputError, match=r"cifar10_1: .*v6_labels\.npy must hold .* 0 … 9"):
        build(options(copies))


def test_whole_labels_kept_as_floats_are_classes(copies):
    np.save(copies / "new/cifar10.1_v6_labels.npy", np.arange(10.0))
    assert sorted(build(options(copies)).splits["ood_cifar10_1"].labels.tolist()) == [*range(10)]


def test_an_empty_binary_file_is_refused(copies):
    (copies / "stl/test_X.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"test_X\.bin is cut: its 0 bytes"):
        build(options(copies))
