import numpy as np
import pytest

from pipeline.data.cifar100 import Cifar100Options, build
from pipeline.types import InputError


def test_classes_are_the_fine_labels_and_test_images_are_not_trained_on(write_cifar):
    built = build(Cifar100Options(path=write_cifar(), holdout=0))
    assert {name: len(split) for name, split in built.splits.items()} == {
        "train": 100,
        "id_test": 100,
    }
    assert len(built.classes) == 100
    for split in built.splits.values():
        assert np.array_equal(np.sort(split.labels), np.arange(100))


def test_files_of_fewer_classes_are_refused(write_cifar):
    with pytest.raises(InputError, match="95 sample\\(s\\) for 100 classes"):
        build(Cifar100Options(path=write_cifar(superclasses=19), holdout=0))
