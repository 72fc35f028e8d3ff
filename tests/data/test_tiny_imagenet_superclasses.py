from collections import Counter

import pytest

from pipeline.data.preprocess import Preprocess, load_batch
from pipeline.data.tiny_imagenet_superclasses import TinyImagenetSuperclassesOptions, build
from pipeline.types import InputError


def test_the_real_set_is_split_and_stratified(real_data):
    options = TinyImagenetSuperclassesOptions(path=str(real_data / "tiny_imagenet_superclasses"))
    built = build(options)
    sizes = {name: len(split) for name, split in built.splits.items()}
    assert sizes == {"train": 3360, "val": 840, "id_test": 1400, "ood_test": 1400}
    assert len(built.classes) == 14
    val = built.splits["val"]
    assert set(Counter(val.source.column("wnid")[val.rows]).values()) == {30}
    batch = load_batch(val, slice(0, 200), Preprocess(options.preprocess))  # greyscale among them
    assert batch.shape == (200, 3, 64, 64)
    assert -124 < float(batch.min()) < -90
    assert 90 < float(batch.max()) < 152


def test_class_names_that_differ_between_files_are_refused(tmp_path, jpeg, write_parquet):
    for i, split in enumerate(("train", "id_test", "ood_test")):
        names = '["a", "b"]' if split != "ood_test" else '["b", "a"]'
        columns = {"label": [0, 1], "wnid": ["n1", "n2"]}
        path = tmp_path / f"{split}-00000-of-00001.parquet"
        images = [jpeg(2 * i), jpeg(2 * i + 1)]
        write_parquet(path, images, columns, metadata={"class_names": names})
    with pytest.raises(InputError, match=r"ood_test-\*\.parquet names the classes \['b', 'a'\]"):
        build(TinyImagenetSuperclassesOptions(path=str(tmp_path)))
