import numpy as np
import pytest
import torch
from torch import nn

from pipeline.sketch import make_sketch
from pipeline.sketch.stratified import allocate


def net():
    return nn.Sequential(nn.Linear(9, 10), nn.Tanh(), nn.Linear(10, 1))


@pytest.mark.parametrize(
    ("allocation", "expected"), [("proportional", [50, 6]), ("equal", [45, 11])]
)
def test_columns_per_layer(allocation, expected):
    sketch = make_sketch("stratified", net(), size=56, allocation=allocation)
    # 100 and 11 parameters: equal shares are capped by the small layer.
    first = int((sketch.indices < 100).sum())
    assert [first, 56 - first] == expected
    assert sketch.indices.unique().numel() == 56
    assert torch.equal(sketch.indices, sketch.indices.sort().values)


def test_weights_are_those_of_each_stratum():
    sketch = make_sketch("stratified", net(), size=56)
    np.testing.assert_allclose(sketch.column_weights[:50], (100 / 50) ** 0.5)
    np.testing.assert_allclose(sketch.column_weights[50:], (11 / 6) ** 0.5)


def test_prefixes_are_no_samples():
    assert not make_sketch("stratified", net(), size=20).prefix_closed


@pytest.mark.parametrize("seed", range(20))
def test_allocation_sums_to_the_size_within_its_bounds(seed):
    rng = np.random.default_rng(seed)
    capacities = rng.integers(1, 50, size=rng.integers(1, 9))
    size = int(rng.integers(len(capacities), capacities.sum() + 1))
    kept = allocate(size, capacities, rng.random(len(capacities)) + 0.01)
    assert kept.sum() == size
    assert ((kept >= 1) & (kept <= capacities)).all()
