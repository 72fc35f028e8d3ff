import pytest
import torch

from pipeline.analyses.full_kernel import kernel_of, power_law
from pipeline.analyses.infinite_width import infinite_width_ntk
from pipeline.analyses.width_networks import make_network
from pipeline.types import InputError


def images(n, seed):
    return torch.randn(n, 1, 3, 3, generator=torch.Generator().manual_seed(seed))


def test_the_entk_of_wide_networks_approaches_it_as_the_root_of_the_width():
    x, y = images(4, 1), images(3, 2)
    limit = infinite_width_ntk(x, y)
    widths, misses = (64, 256, 1024), []
    for width in widths:
        found = [
            kernel_of(make_network("fully_connected", x.shape[1:], width, 2, seed), x, y, output=0)
            for seed in range(6)
        ]
        misses.append(
            sum(float((K / width - limit).norm() / limit.norm()) for K in found) / len(found)
        )
    assert misses[-1] < 0.1
    assert power_law(widths, misses).exponent == pytest.approx(-0.5, abs=0.2)


def test_one_layer_is_the_arc_cosine_kernel_of_random_features():
    x = images(5, 3)
    W = torch.randn(200_000, 9, generator=torch.Generator().manual_seed(0)) * (2 / 9) ** 0.5
    h = (x.flatten(1) @ W.T).relu().double()
    expected = h @ h.T / h.shape[1]
    torch.testing.assert_close(infinite_width_ntk(x, layers=1), expected, rtol=0.03, atol=0.01)


def test_a_network_without_hidden_layers_is_refused():
    with pytest.raises(InputError, match="one hidden layer"):
        infinite_width_ntk(images(2, 0), layers=0)
