import math

import pytest
import torch

from pipeline.store import NonFiniteFeatureError, power_of_two_scale
from pipeline.store.precision import TORCH_DTYPES, convert


def to_stored(phi, dtype, scale, ids):
    stored = torch.empty(phi.shape, dtype=TORCH_DTYPES[dtype])
    convert(phi, stored, scale, ids)
    return stored


@pytest.mark.parametrize("largest", [1e-12, 0.7, 1.0, 255.0, 256.0, 257.0, 1e9])
def test_scale_is_a_power_of_two_that_brings_the_largest_entry_below_256(largest):
    scale = power_of_two_scale(torch.tensor([[largest, -largest / 3]], dtype=torch.float64))
    assert math.log2(scale).is_integer()
    assert 128 < largest * scale <= 256


def test_zero_gradients_keep_their_scale():
    assert power_of_two_scale(torch.zeros(3, 4)) == 1.0


def test_first_rows_that_are_not_finite_are_refused():
    with pytest.raises(NonFiniteFeatureError, match="NaN or infinite"):
        power_of_two_scale(torch.tensor([[1.0, float("nan")]]))


def test_scaling_before_rounding_saves_small_gradients():
    phi = torch.tensor([[1e-9, 3e-9]])
    assert not to_stored(phi, "float16", 1.0, ["a"]).any()
    scale = power_of_two_scale(phi)
    stored = to_stored(phi, "float16", scale, ["a"])
    torch.testing.assert_close(stored.float() / scale, phi, rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_found_and_named(dtype, value):
    phi = torch.ones(40, 7)
    phi[33, 5] = value
    with pytest.raises(NonFiniteFeatureError, match=r"'33' in column 5 is"):
        to_stored(phi, dtype, 1.0, [str(i) for i in range(40)])


def test_what_rounds_to_the_largest_number_is_stored_and_what_overflows_is_refused():
    phi = torch.tensor([[65519.0, -65519.0]])
    assert to_stored(phi, "float16", 1.0, ["a"]).tolist() == [[65504.0, -65504.0]]
    with pytest.raises(NonFiniteFeatureError, match="overflows float16"):
        to_stored(phi + 2, "float16", 1.0, ["a"])
