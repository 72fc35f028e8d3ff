import pytest
import torch
from torch import nn

from pipeline.sketch import make_sketch
from pipeline.types import InputError


def test_full_keeps_every_parameter_in_order_with_weight_one():
    sketch = make_sketch("full", nn.Linear(3, 2), seed=4)
    assert torch.equal(sketch.indices, torch.arange(8))
    assert torch.equal(sketch.column_weights, torch.ones(8, dtype=torch.float64))
    assert not sketch.prefix_closed


def test_full_has_no_size():
    with pytest.raises(InputError, match="size"):
        make_sketch("full", nn.Linear(3, 2), size=4)


def test_unknown_kind_names_the_known_ones():
    with pytest.raises(InputError, match="uniform, stratified, layers, block"):
        make_sketch("unifrom", nn.Linear(3, 2))


def test_unknown_option_is_refused_by_name():
    with pytest.raises(InputError, match="sise"):
        make_sketch("uniform", nn.Linear(3, 2), sise=4)
