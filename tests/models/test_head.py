import pytest
import torch
from torch import nn

from pipeline.models.head import HeadOptions, with_head, with_head_weights
from pipeline.models.network import Network, as_network, state_digest
from pipeline.types import InputError


def network(width: int = 400) -> Network:
    module = nn.Sequential(nn.Linear(7, width), nn.GELU(), nn.Linear(width, 10, bias=False))
    return as_network(module)


def test_a_random_head_is_normal_with_variance_one_over_the_width_and_zero_bias():
    head = with_head(network(), "random", outputs=50, seed=3).head_module
    assert head.weight.shape == (50, 400)
    # 20,000 draws: the variance's standard error is its value × sqrt(2 / 20,000) = 1 %.
    assert head.weight.var().item() == pytest.approx(1 / 400, rel=0.05)
    assert abs(head.weight.mean().item()) < 4 * (1 / 400 / 20_000) ** 0.5
    assert torch.equal(head.bias, torch.zeros(50))


def test_the_head_is_a_function_of_its_seed_and_of_no_global_state():
    original = network()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = with_head(original, "random", 2, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert with_head(original, "random", 2, seed=5).state_digest() == first.state_digest()
    assert with_head(original, "random", 2, seed=6).state_digest() != first.state_digest()


def test_the_given_network_stays_as_it_was():
    original = network()
    before = state_digest(original.module)
    changed = with_head(original, "random")
    with torch.no_grad():
        changed.module[0].weight.zero_()
    assert state_digest(original.module) == before
    assert original.outputs == 10
    assert changed.outputs == 1


def test_a_kept_head_is_the_pretrained_one():
    original = network()
    assert with_head(original, "keep") is original


def test_a_head_that_no_checkpoint_filled_cannot_be_kept():
    untrained = as_network(network().module, untrained_head=True)
    with pytest.raises(InputError, match=r"model\.head\.kind: .*none to keep"):
        with_head(untrained, "keep")
    assert not with_head(untrained, "random").untrained_head


def test_a_fitted_head_gives_its_own_logits():
    original = network(6)
    weight, bias = torch.randn(3, 6), torch.randn(3)
    fitted = with_head_weights(original, weight, bias)
    x = torch.randn(4, 7)
    torch.testing.assert_close(
        fitted.module(x), original.module[:2](x) @ weight.T + bias, rtol=1e-5, atol=1e-5
    )
    with pytest.raises(InputError, match=r"\(k, 6\)"):
        with_head_weights(original, torch.randn(3, 5), bias)


def test_the_options_refuse_no_outputs():
    with pytest.raises(ValueError, match="outputs"):
        HeadOptions(outputs=0)
