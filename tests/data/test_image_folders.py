import shutil

import pytest

from pipeline.data.image_folders import ImageFoldersOptions, build
from pipeline.types import InputError


@pytest.fixture
def shift(tmp_path, write_tree):
    """Photos and sketches of cats and dogs."""
    write_tree(tmp_path / "train", {"cat": 10, "dog": 20})
    write_tree(tmp_path / "test", {"cat": 3, "dog": 3}, first=1000)
    write_tree(tmp_path / "sketch", {"cat": 2, "dog": 2}, first=2000)
    return tmp_path


def options(root, **more):
    values = {"train": str(root / "train"), "id_test": str(root / "test")}
    return ImageFoldersOptions(**values | {"ood": {"sketch": str(root / "sketch")}} | more)


def test_folders_become_splits_and_classes(shift):
    built = build(options(shift))
    sizes = {name: len(split) for name, split in built.splits.items()}
    assert sizes == {"train": 27, "val": 3, "id_test": 6, "ood_sketch": 4}
    assert built.classes == ["cat", "dog"]
    for split in built.splits.values():
        names = [built.classes[k] for k in split.labels]
        assert names == [name.split("/")[0] for name in split.ids]


def test_a_validation_folder_may_be_given(shift):
    built = build(options(shift, val=str(shift / "sketch"), ood={}))
    assert {n: len(s) for n, s in built.splits.items()} == {"train": 30, "val": 4, "id_test": 6}


def test_class_folders_that_differ_are_named(shift):
    (shift / "sketch" / "dog").rename(shift / "sketch" / "hound")
    with pytest.raises(
        InputError, match=r"benchmark\.ood\.sketch.*missing dog; not among .* hound.*benchmark\.cl"
    ):
        build(options(shift))


def test_classes_may_have_other_folders_in_other_splits(shift):
    (shift / "sketch" / "dog").rename(shift / "sketch" / "hound")
    classes = {"dog": ("dog", "hound"), "cat": ("cat",)}
    built = build(options(shift, classes=classes))
    assert built.classes == ["dog", "cat"]
    assert built.splits["ood_sketch"].labels.tolist().count(0) == 2
    with pytest.raises(InputError, match=r"lacks 1 of 3 class folders: fox"):
        build(options(shift, classes={**classes, "fox": ("fox",)}))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"cat": ("cat",), "feline": ("cat", "dog")}, "folder cat belongs to two classes, cat and"),
        ({"cat": ("cat",), "dog": ("dog", "./dog/")}, "folder dog belongs to dog twice"),
        ({"cat": ("cat/old",), "dog": ("cat",)}, "cat/old and cat, one in the other, belongs to t"),
    ],
)
def test_a_folder_of_two_classes_is_refused(shift, classes, message):
    with pytest.raises(InputError, match=message):
        build(options(shift, classes=classes))


def test_a_training_folder_without_class_folders_is_named(shift, jpeg, put):
    put(shift / "flat" / "1.jpg", jpeg(1))
    with pytest.raises(InputError, match=r"benchmark\.train: .*no class folders \(1 image"):
        build(options(shift, train=str(shift / "flat")))


def test_an_empty_class_folder_is_named(shift):
    shutil.rmtree(shift / "test" / "cat")
    (shift / "test" / "cat").mkdir()
    with pytest.raises(InputError, match=r"benchmark\.id_test: split id_test: no images in cat"):
        build(options(shift))


def test_a_copy_across_splits_is_named_or_dropped(shift):
    shutil.copy(shift / "test" / "cat" / "image_000.JPEG", shift / "train" / "cat" / "copy.JPEG")
    with pytest.raises(InputError, match=r"share 1 sample\(s\).*cat/copy\.JPEG is cat/image_000"):
        build(options(shift, holdout=0))
    built = build(options(shift, holdout=0, duplicates="drop"))
    assert len(built.splits["train"]) == 30
    assert "train: 1 sample(s) dropped" in built.notes[0]


def test_a_missing_folder_names_its_key(shift):
    with pytest.raises(InputError, match=r"benchmark\.ood\.sketch: expected a folder"):
        build(options(shift, ood={"sketch": str(shift / "nowhere")}))


def test_unreadable_images_are_skipped_where_asked(shift):
    (shift / "train" / "dog" / "image_004.JPEG").write_bytes(b"no image")
    built = build(options(shift, on_bad="skip", holdout=0))
    assert len(built.splits["train"]) == 29
    assert "image_004.JPEG" in built.notes[0]
