import numpy as np
import pytest

from pipeline.data.cifar100_superclasses import Cifar100SuperclassesOptions, build
from pipeline.data.preprocess import Preprocess, load_batch
from pipeline.types import InputError

LIMIT = {"train": 5000, "val": 2000, "id_test": 3000, "ood_test": 3000}


def fine_labels(split):
    return split.source.column("fine_label")[split.rows]


def test_source_and_target_subclasses_are_disjoint(write_cifar):
    built = build(Cifar100SuperclassesOptions(path=write_cifar(), holdout=0))
    sizes = {name: len(split) for name, split in built.splits.items()}
    assert sizes == {"train": 60, "id_test": 60, "ood_test": 40}
    source, target = (set(fine_labels(built.splits[n])) for n in ("train", "ood_test"))
    assert source == set(fine_labels(built.splits["id_test"]))
    assert not source & target
    for split in built.splits.values():
        assert np.array_equal(split.labels, fine_labels(split) % 20)
    assert np.bincount(built.splits["train"].labels).tolist() == [3] * 20


def test_the_seed_draws_the_subclasses(write_cifar):
    path = write_cifar()
    a, b, c = (
        build(Cifar100SuperclassesOptions(path=path, holdout=0, seed=seed)) for seed in (0, 0, 1)
    )
    assert a.splits["train"].digest() == b.splits["train"].digest()
    assert set(fine_labels(a.splits["train"])) != set(fine_labels(c.splits["train"]))


def test_copies_of_test_images_leave_the_training_images(write_cifar, jpeg):
    test = [jpeg(i if i < 10 else 1000 + i, (4, 4)) for i in range(100)]
    path = write_cifar(test)
    with pytest.raises(InputError, match="share"):
        build(Cifar100SuperclassesOptions(path=path, holdout=0, duplicates="stop"))
    built = build(Cifar100SuperclassesOptions(path=path, holdout=0))
    copied = sum(fine < 10 for fine in fine_labels(built.splits["id_test"]))
    assert len(built.splits["train"]) == 60 - copied
    assert f"train: {copied} sample(s) dropped" in built.notes[-1]


def test_a_missing_path_says_what_belongs_there_and_where_to_get_it(tmp_path):
    for path, found in [(tmp_path / "nowhere", "found nothing"), (tmp_path, "train-")]:
        with pytest.raises(InputError, match=rf"benchmark\.path.*{found}") as caught:
            build(Cifar100SuperclassesOptions(path=str(path)))
        assert "huggingface.co/datasets/uoft-cs/cifar100" in str(caught.value)


def test_an_incomplete_cifar_is_refused(write_cifar):
    with pytest.raises(InputError, match="has 4 subclasses"):
        build(Cifar100SuperclassesOptions(path=write_cifar(superclasses=16)))


def test_the_real_set_has_the_published_counts(real_data):
    options = Cifar100SuperclassesOptions(path=str(real_data / "cifar100"), limit=LIMIT)
    built = build(options)
    assert {name: len(split) for name, split in built.splits.items()} == LIMIT
    whole = build(options.model_copy(update={"limit": {}}))
    sizes = {name: len(split) for name, split in whole.splits.items()}
    # 30,000, 6,000 and 4,000 but for the set's own copies.
    assert 29_950 < sizes["train"] + sizes["val"] <= 30_000
    assert sizes["id_test"] == 6000
    assert 3990 <= sizes["ood_test"] <= 4000
    for name, split in built.splits.items():
        assert whole.splits[name].ids[: len(split)] == split.ids
        per_class = np.bincount(split.labels, minlength=20)
        assert np.ptp(per_class) <= 0.04 * len(split) / 20 + 4
    batch = load_batch(built.splits["train"], slice(0, 64), Preprocess(options.preprocess))
    assert batch.shape == (64, 3, 32, 32)
    assert abs(float(batch.mean())) < 0.6
