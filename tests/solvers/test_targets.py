import numpy as np
import pytest
import torch

from pipeline.solvers.targets import centered_targets, class_targets
from pipeline.types import InputError


def test_targets_are_one_hot_minus_the_class_mean():
    targets = class_targets(np.array([0, 2, 2, 1]), 3)
    assert targets.mean.tolist() == [0.25, 0.25, 0.5]
    expected = torch.eye(3, dtype=torch.float64)[[0, 2, 2, 1]] - targets.mean
    torch.testing.assert_close(targets.matrix, expected)
    torch.testing.assert_close(targets.scores(targets.matrix).sum(dim=1), torch.ones(4).double())


def test_one_class_gives_zero_targets():
    assert not class_targets(np.zeros(5, dtype=int), 1).matrix.any()


def test_real_targets_are_centred():
    Y = torch.arange(6.0).reshape(3, 2)
    targets = centered_targets(Y)
    torch.testing.assert_close(targets.scores(targets.matrix), Y.double())


def test_labels_out_of_range_are_named():
    with pytest.raises(InputError, match="label 3 of row 1"):
        class_targets(np.array([0, 3]), 3)
    with pytest.raises(InputError, match="integers"):
        class_targets(np.array([0.0, 1.0]), 3)
