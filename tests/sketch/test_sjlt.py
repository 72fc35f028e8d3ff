import pytest
import torch
from torch import nn

from pipeline.sketch import make_sketch
from pipeline.types import InputError


def image_of_identity(sketch, model):
    """The transform as a matrix (P, p), fed parameter by parameter."""
    S = torch.zeros(sketch.total, sketch.size)
    start = 0
    for name, parameter in model.named_parameters():
        rows = torch.zeros(sketch.total, parameter.numel())
        rows[start : start + parameter.numel()] = torch.eye(parameter.numel())
        sketch.accumulate(name, 0, rows, S)
        start += parameter.numel()
    return S


@pytest.mark.parametrize("nonzeros", [1, 3])
def test_every_parameter_goes_to_s_columns_with_unit_norm(nonzeros):
    model = nn.Linear(40, 30)
    S = image_of_identity(make_sketch("sjlt", model, size=100, nonzeros=nonzeros), model)
    assert ((S != 0).sum(1) == nonzeros).all()
    torch.testing.assert_close((S**2).sum(1), torch.ones(len(S)))


def test_columns_and_signs_are_evenly_spread():
    model = nn.Linear(200, 500, bias=False)
    sketch = make_sketch("sjlt", model, size=10)
    columns, signs = sketch._hashed(torch.arange(100_000), 0)
    counts = torch.bincount(columns, minlength=10)
    # Binomial with 1e5 draws of 1/10 and of 1/2: standard deviations 95 and 158.
    assert (counts - 10_000).abs().max() < 5 * 95
    assert abs(int((signs > 0).sum()) - 50_000) < 5 * 158


def test_more_nonzeros_than_columns_are_refused():
    with pytest.raises(InputError, match=r"sketch\.nonzeros"):
        make_sketch("sjlt", nn.Linear(4, 4), size=3, nonzeros=4)
