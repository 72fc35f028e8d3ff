import json
from collections import Counter

import pytest

from pipeline.data.living17 import Living17Options, build, subclasses, superclasses
from pipeline.data.preprocess import Preprocess, load_batch
from pipeline.types import InputError

SPLITS = ("rand", "good", "bad")


@pytest.fixture
def imagenet(tmp_path, write_tree):
    """ImageNet's folders for Living-17, 10 training and 2 validation images a class."""
    root = tmp_path / "imagenet"
    source = [wnid for pair in subclasses("rand", "source") for wnid in pair]
    target = [wnid for pair in subclasses("rand", "target") for wnid in pair]
    write_tree(root / "train", dict.fromkeys(source, 10))
    write_tree(root / "val", dict.fromkeys(source + target, 2), first=10_000)
    return root


def wnids(split):
    return [name.split("/")[1] for name in split.ids]


def test_the_classes_are_those_of_the_authors_code(real_data):
    derived = json.loads((real_data / "living17_rand.json").read_text())
    for domain in ("source", "target"):
        expected = [[c["wnid"] for c in s[domain]] for s in derived["superclasses"]]
        assert subclasses("rand", domain) == expected
        for split in ("good", "bad"):
            other = derived["other_splits"][split]
            assert subclasses(split, domain) == [s[domain] for s in other]
    names = [s["superclass"].split(",")[0] for s in derived["superclasses"]]
    assert superclasses() == names


@pytest.mark.parametrize("split", SPLITS)
def test_source_and_target_never_meet(split):
    source, target = (
        [wnid for pair in subclasses(split, domain) for wnid in pair]
        for domain in ("source", "target")
    )
    assert len(source) == len(target) == 34
    assert len({*source, *target}) == 68


def test_splits_come_from_the_right_folders(imagenet):
    built = build(Living17Options(path=str(imagenet)))
    sizes = {name: len(split) for name, split in built.splits.items()}
    assert sizes == {"train": 306, "val": 34, "id_test": 68, "ood_test": 68}
    source, target = subclasses("rand", "source"), subclasses("rand", "target")
    for name, split in built.splits.items():
        folder = "train/" if name in ("train", "val") else "val/"
        assert all(path.startswith(folder) for path in split.ids)
        pairs = target if name == "ood_test" else source
        assert all(wnid in pairs[k] for wnid, k in zip(wnids(split), split.labels, strict=True))


def test_the_holdout_is_a_tenth_of_every_subclass(imagenet):
    built = build(Living17Options(path=str(imagenet)))
    assert set(Counter(wnids(built.splits["val"])).values()) == {1}
    assert set(Counter(wnids(built.splits["train"])).values()) == {9}
    everything = build(Living17Options(path=str(imagenet), holdout=0))
    assert "val" not in everything.splits
    assert len(everything.splits["train"]) == 340


def test_a_partial_imagenet_is_noted(imagenet):
    notes = build(Living17Options(path=str(imagenet))).notes
    assert "train: 340 images found, living17 has 44200" in notes


def test_images_are_resized_and_cropped(imagenet):
    options = Living17Options(path=str(imagenet))
    batch = load_batch(build(options).splits["train"], slice(0, 2), Preprocess(options.preprocess))
    assert batch.shape == (2, 3, 224, 224)


def test_missing_class_folders_are_named(imagenet):
    victim = imagenet / "val" / subclasses("rand", "target")[5][1]
    for file in victim.iterdir():
        file.unlink()
    with pytest.raises(InputError, match=f"ood_test: no images in val/{victim.name}"):
        build(Living17Options(path=str(imagenet)))
    victim.rmdir()
    with pytest.raises(InputError, match=f"lacks 1 of 34 class folders: val/{victim.name}"):
        build(Living17Options(path=str(imagenet)))
    with pytest.raises(InputError, match=r"class folders: train/"):
        build(Living17Options(path=str(imagenet), split="good"))


def test_a_missing_or_flat_imagenet_says_what_to_do(tmp_path, jpeg, put):
    with pytest.raises(InputError, match=r"benchmark\.path.*train/<wnid>.*image-net\.org"):
        build(Living17Options(path=str(tmp_path / "nowhere")))
    (tmp_path / "train").mkdir()
    put(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", jpeg(0))
    with pytest.raises(InputError, match="without class folders"):
        build(Living17Options(path=str(tmp_path)))
