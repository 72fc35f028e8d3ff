"""Costs from shapes alone equal those of a real forward pass, and allocate nothing."""

import pytest
import torch
from torch import nn

from pipeline.jacobian.costs import sample_costs, shape_costs
from pipeline.models.cifar_resnet import CifarResNet


@pytest.mark.parametrize("n", [1, 2, 3])
def test_shapes_alone_give_the_costs_of_a_real_pass(n):
    model = CifarResNet(8, "A").eval()
    images = torch.randn(n, 3, 32, 32)
    assert shape_costs(model, images) == sample_costs(model, images)


def test_inputs_by_name_are_counted_too():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x, mask):
            return self.layer(x * mask)

    inputs = {"x": torch.randn(2, 4), "mask": torch.ones(2, 4)}
    assert shape_costs(Named(), inputs) == sample_costs(Named(), inputs)


def test_images_that_no_memory_holds_are_counted():
    model = CifarResNet(8, "A").eval()
    small = shape_costs(model, torch.empty(1, 3, 32, 32))
    huge = shape_costs(model, torch.empty(1, 3, 1, 1).expand(1, 3, 2**20, 2**20))
    assert huge.bytes > 2**29 * small.bytes


def test_a_module_that_keeps_tensors_between_calls_keeps_none_without_numbers():
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.mask = None

        def forward(self, x):
            if self.mask is None:
                self.mask = torch.ones(4)
            return self.layer(x * self.mask)

    model = Caching()
    shape_costs(model, torch.randn(2, 4))
    assert model.mask is None
