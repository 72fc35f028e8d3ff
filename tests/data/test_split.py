import pickle

import numpy as np
import pytest

from pipeline.data.arrays import ArraySource
from pipeline.data.split import Benchmark, Source, Split, refuse_overlap
from pipeline.types import InputError


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4), dtype=np.uint8)


def split(name, n=6, *, labels=None, seed=0, **more):
    labels = np.arange(n) % 2 if labels is None else np.array(labels)
    return Split(name, ArraySource(images(n, seed), name), np.arange(n), labels, **more)


def test_an_array_source_is_a_source():
    assert isinstance(ArraySource(images(2), "x"), Source)


def test_subset_takes_positions_not_rows():
    whole = Split("s", ArraySource(images(6), "s"), np.array([5, 3, 1]), np.array([0, 1, 0]))
    assert whole.subset(slice(0, 2)).ids == ["s:5", "s:3"]
    assert whole.subset([2, 0]).ids == ["s:1", "s:5"]
    assert whole.subset([1]).labels.tolist() == [1]
    assert len(whole.subset(slice(0, 0))) == 0


def test_digest_changes_with_order_and_content_but_not_labels():
    one = split("s")
    assert one.digest() == split("s", labels=[1] * 6).digest()
    assert one.digest() == pickle.loads(pickle.dumps(one)).digest()
    assert one.digest() != one.subset(np.arange(6)[::-1]).digest()
    assert one.digest() != split("s", seed=1).digest()
    assert one.label_digest() != split("s", labels=[1] * 6).label_digest()


def test_rows_and_labels_of_different_length_are_a_bug():
    with pytest.raises(ValueError, match="6 rows, 5 labels"):
        split("s", labels=[0] * 5)


def test_empty_split_is_refused_by_name():
    with pytest.raises(InputError, match="split ood_test is empty"):
        Benchmark("b", ["a", "b"], {"train": split("train"), "ood_test": split("ood_test", 0)})


@pytest.mark.parametrize("label", [-1, 2])
def test_label_out_of_range_is_refused_with_the_sample(label):
    bad = split("id_test", labels=[0, 1, 0, label, 0, 1])
    with pytest.raises(InputError, match=rf"outside 0 … 1, such as {label} of id_test:3"):
        Benchmark("b", ["a", "b"], {"train": split("train"), "id_test": bad})


def test_class_missing_from_training_is_refused_by_name():
    with pytest.raises(InputError, match="no sample of 1 of 3 classes: cat"):
        Benchmark("b", ["ant", "bee", "cat"], {"train": split("train")})


def test_fewer_samples_than_classes_says_so_at_the_limit():
    with pytest.raises(InputError, match=r"benchmark\.limit\.train.*2 sample\(s\) for 3 classes"):
        Benchmark("b", ["ant", "bee", "cat"], {"train": split("train", 2)})


def test_pretraining_has_classes_of_its_own():
    splits = {"train": split("train"), "pretrain": split("pretrain", labels=[0, 1, 2, 0, 1, 2])}
    with pytest.raises(InputError, match="pretrain"):
        Benchmark("b", ["a", "b"], splits)
    Benchmark("b", ["a", "b"], splits, pretrain_classes=("x", "y", "z"))


def test_regression_has_no_classes():
    targets = np.random.default_rng(0).normal(size=(6, 2))
    Benchmark("b", [], {"train": split("train", labels=targets)})


def test_overlap_names_both_samples():
    splits = {"train": split("train"), "val": split("val", seed=1), "id_test": split("id_test", 3)}
    with pytest.raises(
        InputError, match=r"train and id_test share 3 sample\(s\): train:0 is id_test:0"
    ):
        refuse_overlap(splits)


def test_copies_within_one_split_are_no_overlap():
    twice = np.concatenate([images(3), images(3)])
    refuse_overlap({"train": Split("train", ArraySource(twice, "t"), np.arange(6), np.zeros(6))})


def test_shifted_versions_of_a_split_may_share_its_content_only():
    id_test = split("id_test")
    shifts = {n: split(n, derived_from="id_test") for n in ("ood_test", "ood_blur")}
    refuse_overlap({"id_test": id_test, **shifts})
    with pytest.raises(InputError, match="train and ood_test"):
        refuse_overlap({"train": split("train"), **shifts})


def test_the_main_ood_split_comes_first():
    names = ["train", "ood_blur", "ood_test", "ood_a"]
    splits = {name: split(name, seed=i) for i, name in enumerate(names)}
    assert Benchmark("b", ["a", "b"], splits).ood_splits == ["ood_test", "ood_blur", "ood_a"]


def test_a_single_class_is_no_classification():
    with pytest.raises(InputError, match="b has one class, only; a classification needs two"):
        Benchmark("b", ["only"], {"train": split("train", labels=[0] * 6)})


@pytest.mark.parametrize("targets", [np.ones((6, 1)), 1e300 * np.arange(6.0)[:, None]])
def test_targets_that_do_not_vary_or_overflow_are_refused(targets):
    with pytest.raises(InputError, match="training targets' standard deviation is"):
        Benchmark("b", [], {"train": split("train", labels=targets)})


def test_an_empty_validation_split_names_the_holdout():
    with pytest.raises(InputError, match=r"split val is empty\. Raise benchmark\.holdout"):
        Benchmark("b", ["x", "y"], {"train": split("train"), "val": split("val", 0)})
