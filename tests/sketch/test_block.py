import numpy as np
import pytest
import torch
from torch import nn

from pipeline.sketch import make_sketch


@pytest.mark.parametrize("seed", range(3))
def test_kept_entries_are_rows_times_channels_with_all_kernel_positions(seed):
    model = nn.Conv2d(6, 8, 3, bias=False)
    sketch = make_sketch("block", model, size=120, seed=seed)
    kept = torch.zeros(8 * 6 * 9, dtype=torch.bool)
    kept[sketch.indices] = True
    kept = kept.view(8, 6, 9)
    rows, channels = kept.any(2).any(1), kept.any(2).any(0)
    expected = rows[:, None] & channels[None, :]
    assert torch.equal(kept, expected[:, :, None].expand(8, 6, 9))
    assert sketch.size <= 120


def test_depthwise_convolution_keeps_channels():
    sketch = make_sketch("block", nn.Conv2d(16, 16, 3, groups=16, bias=False), size=45)
    assert sketch.size == 45
    np.testing.assert_allclose(sketch.column_weights, (16 / 5) ** 0.5)


def test_weights_are_one_over_the_share_of_each_parameter():
    model = nn.Linear(20, 30)
    sketch = make_sketch("block", model, size=100)
    in_weight = sketch.indices < 600
    count = int(in_weight.sum())
    np.testing.assert_allclose(sketch.column_weights[in_weight], (600 / count) ** 0.5)
    np.testing.assert_allclose(sketch.column_weights[~in_weight], (30 / (100 - count)) ** 0.5)
