import math

import pytest
import torch

from pipeline.store import NonFiniteFeatureError, power_of_two_scale
from pipeline.store.precision import to_stored


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
    torch.testing.assert_close(torch.from_numpy(stored).float() / scale, phi, rtol=1e-3, atol=0)
