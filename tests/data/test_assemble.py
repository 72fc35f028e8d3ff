import numpy as np
import pytest

from pipeline.data.arrays import ArraySource
from pipeline.data.assemble import Pool, Rules, assemble
from pipeline.data.image_folder import FolderSource
from pipeline.types import InputError


def pool(n, first=0, classes=2):
    """Images that are equal where their numbers are: first, first + 1, …"""
    pixels = np.stack([np.full((2, 2), first + i, np.uint8) for i in range(n)])
    labels = np.arange(n) % classes
    return Pool(ArraySource(pixels, f"from{first}"), np.arange(n), labels, labels)


def content(split):
    return {int(split.source.image(int(row))[0, 0]) for row in split.rows}


def test_validation_is_held_out_stratified_before_limits():
    rules = Rules(seed=1, holdout=0.25, limit={"train": 10, "val": 4})
    built = assemble("b", ["x", "y"], {"train": pool(40)}, rules)
    assert {name: len(split) for name, split in built.splits.items()} == {"train": 10, "val": 4}
    assert np.bincount(built.splits["train"].labels).tolist() == [5, 5]
    assert not content(built.splits["train"]) & content(built.splits["val"])


def test_limits_are_prefixes_of_one_another():
    full, less = (
        assemble("b", ["x", "y"], {"train": pool(40)}, Rules(seed=3, holdout=0.2, limit=limit))
        for limit in ({}, {"train": 7, "val": 3})
    )
    for name in ("train", "val"):
        m = len(less.splits[name])
        assert full.splits[name].ids[:m] == less.splits[name].ids
    other = assemble("b", ["x", "y"], {"train": pool(40)}, Rules(seed=4, holdout=0.2, limit={}))
    assert other.splits["train"].ids != full.splits["train"].ids


def test_no_holdout_leaves_all_to_training():
    built = assemble("b", ["x", "y"], {"train": pool(8)}, Rules(limit={}))
    assert list(built.splits) == ["train"]
    assert len(built.splits["train"]) == 8


def test_a_given_validation_split_is_kept():
    pools = {"train": pool(8), "val": pool(4, first=100)}
    built = assemble("b", ["x", "y"], pools, Rules(holdout=0.5, limit={}))
    assert {n: len(s) for n, s in built.splits.items()} == {"train": 8, "val": 4}


def test_copies_across_splits_stop_unless_dropped():
    pools = {"train": pool(10), "id_test": pool(4, first=8), "ood_test": pool(4, first=11)}
    with pytest.raises(InputError, match="train and id_test share 2"):
        assemble("b", ["x", "y"], pools, Rules(limit={}))
    built = assemble("b", ["x", "y"], pools, Rules(limit={}, drop_copies=True))
    assert content(built.splits["train"]) == set(range(8))
    assert content(built.splits["id_test"]) == {8, 9, 10, 11}
    assert content(built.splits["ood_test"]) == {12, 13, 14}
    assert len(built.notes) == 2
    assert any(note.startswith("train: 2 sample(s) dropped") for note in built.notes)


def test_a_split_of_copies_alone_says_how_many_were_dropped():
    pools = {"train": pool(10), "id_test": pool(12), "ood_test": pool(4, first=50)}
    with pytest.raises(
        InputError, match=r"nothing is left of split\(s\) train \(10\): every sample"
    ):
        assemble("b", ["x", "y"], pools, Rules(limit={}, drop_copies=True))


def test_copies_torn_apart_by_the_holdout_leave_training():
    twins = pool(20)
    pixels = np.concatenate([twins.source.array, twins.source.array])
    labels = np.concatenate([twins.labels, twins.labels])
    both = Pool(ArraySource(pixels, "twins"), np.arange(40), labels, labels)
    built = assemble("b", ["x", "y"], {"train": both}, Rules(holdout=0.5, limit={}))
    assert not content(built.splits["train"]) & content(built.splits["val"])
    assert "dropped" in built.notes[0]


def test_unreadable_images_are_left_out_and_counted(tmp_path, jpeg, put):
    for i in range(10):
        data = jpeg(i)
        put(tmp_path / f"{i}.jpg", data[:60] if i in (3, 7) else data)
    source = FolderSource(tmp_path, tuple(f"{i}.jpg" for i in range(10)))
    labels = np.arange(10) % 2
    pools = {"train": Pool(source, np.arange(10), labels, labels)}
    for _ in range(2):  # the second time from memory
        built = assemble("b", ["x", "y"], pools, Rules(limit={}, skip_unreadable=True))
        assert sorted(built.splits["train"].rows) == [0, 1, 2, 4, 5, 6, 8, 9]
        assert "train: 2 unreadable image(s) skipped" in built.notes[0]
        assert "3.jpg" in built.notes[0]
    assert len(assemble("b", ["x", "y"], pools, Rules(limit={})).splits["train"]) == 10


def test_a_limit_beyond_what_there_is_is_noted():
    built = assemble("b", ["x", "y"], {"train": pool(4)}, Rules(limit={"train": 9}))
    assert built.notes == ("train: 9 samples asked for, 4 available",)


def test_an_unknown_split_in_the_limits_is_refused():
    with pytest.raises(InputError, match=r"benchmark\.limit\.test: no split 'test'.*has train"):
        assemble("b", ["x", "y"], {"train": pool(4)}, Rules(limit={"test": 1}))


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match="split id_test is empty"):
        assemble(
            "b",
            ["x", "y"],
            {"train": pool(4), "id_test": pool(4).take(np.arange(0))},
            Rules(limit={}),
        )


def test_groups_follow_their_rows():
    base = pool(12)
    grouped = Pool(base.source, base.rows, base.labels, base.strata, groups=base.rows * 10)
    built = assemble("b", ["x", "y"], {"train": grouped}, Rules(holdout=0.25, limit={"train": 5}))
    for split in built.splits.values():
        assert split.groups.tolist() == (split.rows * 10).tolist()
