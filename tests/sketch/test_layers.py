import numpy as np
import pytest
import torch
from torch import nn

from pipeline.sketch import make_sketch
from pipeline.types import InputError


def net():
    return nn.ModuleDict(
        {
            "stem": nn.Linear(3, 4),
            "body": nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)),
            "head": nn.Linear(4, 2),
        }
    )


# Places in the network: stem 0-16, body.0 16-36, body.1 36-44, head 44-54.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"last": 1}, range(44, 54)),
        ({"last": 2}, range(36, 54)),
        ({"names": ["body"]}, range(16, 44)),
        ({"names": ["head", "stem.bias"]}, [*range(12, 16), *range(44, 54)]),
    ],
)
def test_named_and_last_layers_are_kept_whole(options, expected):
    sketch = make_sketch("layers", net(), **options)
    assert sketch.indices.tolist() == list(expected)
    assert torch.equal(sketch.column_weights, torch.ones(sketch.size, dtype=torch.float64))
    assert not sketch.prefix_closed
    assert sketch.total == 54


def test_sample_of_the_layers_estimates_their_kernel():
    gradients = np.random.default_rng(0).standard_normal((2, 54))
    kernels = []
    for seed in range(1500):
        sketch = make_sketch("layers", net(), last=2, size=6, seed=seed)
        phi = gradients[:, sketch.indices] * sketch.column_weights.numpy()
        kernels.append(phi @ phi.T)
    expected = gradients[:, 36:] @ gradients[:, 36:].T
    errors = np.std(kernels, axis=0) / 1500**0.5
    assert (np.abs(np.mean(kernels, axis=0) - expected) < 4.5 * errors).all()
    assert sketch.prefix_closed


def test_unknown_name_is_refused_with_close_ones():
    with pytest.raises(InputError, match=r"sketch\.names: .*'bodi'.*body"):
        make_sketch("layers", net(), names=["bodi"])


def test_a_name_like_no_other_is_refused_with_the_layers():
    with pytest.raises(InputError, match=r"named '7'\. Layers are stem, body\.0, body\.1, head"):
        make_sketch("layers", net(), names=["7"])


def test_more_layers_than_there_are_are_refused():
    with pytest.raises(InputError, match=r"sketch\.last: 5 layers .* has 4"):
        make_sketch("layers", net(), last=5)


@pytest.mark.parametrize("options", [{}, {"last": 1, "names": ["head"]}])
def test_exactly_one_way_of_choosing(options):
    with pytest.raises(InputError, match="either names or last"):
        make_sketch("layers", net(), **options)


def test_more_parameters_than_the_layers_have_are_refused():
    with pytest.raises(InputError, match=r"sketch\.size: 11 parameters .* layers has 10"):
        make_sketch("layers", net(), last=1, size=11)
