import pytest
import torch
from torch import nn

from pipeline.sketch import make_sketch
from pipeline.types import InputError


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))


def test_positions_are_distinct_and_in_random_order():
    sketch = make_sketch("uniform", net(), size=30, seed=3)
    assert sketch.indices.dtype == torch.int64
    assert sketch.indices.unique().numel() == sketch.size == 30
    assert sketch.total == 58
    assert int(sketch.indices.max()) < sketch.total
    assert not torch.equal(sketch.indices, sketch.indices.sort().values)


def test_one_factor_makes_the_kernel_unbiased():
    sketch = make_sketch("uniform", net(), size=29)
    assert sketch.column_weights.dtype == torch.float64
    torch.testing.assert_close(sketch.column_weights, torch.full((29,), 2.0**0.5).double())


def test_larger_sketch_extends_a_smaller_one_of_the_same_seed():
    small, large = (make_sketch("uniform", net(), size=q, seed=5) for q in (10, 40))
    assert torch.equal(large.indices[:10], small.indices)
    assert large.prefix_closed


def test_every_parameter_is_kept_equally_often():
    counts = torch.zeros(58)
    for seed in range(600):
        counts[make_sketch("uniform", net(), size=29, seed=seed).indices] += 1
    # Binomial with 600 draws of 1/2: standard deviation 12.2.
    assert (counts - 300).abs().max() < 5 * 12.2


def test_same_seed_gives_the_same_digest_and_another_seed_another():
    first, again, other = (make_sketch("uniform", net(), size=9, seed=s) for s in (1, 1, 2))
    assert first.digest() == again.digest() != other.digest()
    assert first.provenance()["digest"] == first.digest()


def test_left_out_size_keeps_all_of_a_small_network():
    assert make_sketch("uniform", net()).size == 58


def test_more_columns_than_parameters_are_refused_with_the_config_path():
    with pytest.raises(InputError, match=r"sketch\.size: 59 parameters .* has 58"):
        make_sketch("uniform", net(), size=59)


def test_tied_parameters_count_once():
    model = net()
    model.extra = nn.Linear(5, 3)
    model.extra.weight = model[2].weight
    assert make_sketch("full", model).total == 58 + 3


@pytest.mark.parametrize("model", [nn.ReLU(), torch.zeros(3)])
def test_what_has_no_parameters_is_refused(model: object) -> None:
    with pytest.raises(InputError, match="of a network's parameters, and this"):
        make_sketch("uniform", model)
