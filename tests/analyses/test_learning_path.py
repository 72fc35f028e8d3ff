"""First-order predictions against steps really taken."""

import numpy as np
import pytest
import torch
from reference import explicit_jacobian
from small_kernels import one_hot
from small_networks import points, tanh_network

from pipeline.analyses.learning_path import (
    first_order_step,
    loss_value,
    step_study,
    train_recording,
    zigzag,
)

K_OUT = 3


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_the_first_order_change_is_the_formula_with_blocks(loss):
    model, x, watched = tanh_network(), points(1), points(4, seed=2)
    target = torch.tensor([[0.2, 0.7, 0.1]], dtype=torch.float64)
    found = first_order_step(model, watched, x, target, 0.1, loss)
    Theta = explicit_jacobian(model, watched, K_OUT) @ explicit_jacobian(model, x, K_OUT).T
    with torch.no_grad():
        f, on = model(watched), model(x)
    away = target - (on if loss == "squared" else on.softmax(1))
    change = 0.1 * (Theta @ away[0]).reshape(4, K_OUT)
    torch.testing.assert_close(found.outputs, change, rtol=1e-10, atol=1e-12)
    q = f.softmax(1)
    A = torch.diag_embed(q) - q[:, :, None] * q[:, None, :]
    expected = torch.einsum("mjl,ml->mj", A, change)
    torch.testing.assert_close(found.probabilities, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_the_remainder_falls_as_the_square_of_the_step_over_three_decades(loss):
    model = tanh_network(width=12)
    study = step_study(
        model, points(5, seed=2), points(3), one_hot(3, K_OUT), np.geomspace(1e-4, 1e-1, 7), loss
    )
    assert study.output_order.exponent == pytest.approx(2, abs=0.02)
    assert study.probability_order.exponent == pytest.approx(2, abs=0.05)


def test_recording_trains_and_averages_what_was_predicted():
    model, x, Y = tanh_network(), points(20), one_hot(20, K_OUT)
    before = float(loss_value(model(x).detach(), Y, "cross_entropy"))
    path = train_recording(model, x, Y, epochs=4, learning_rate=0.1, batch=5, average=1.0)
    assert float(loss_value(model(x).detach(), Y, "cross_entropy")) < before
    assert path.probabilities.shape == (5, 20, K_OUT)
    torch.testing.assert_close(path.average.sum(1), torch.ones(20, dtype=torch.float64))


def test_the_same_seed_gives_the_same_path():
    def run():
        return train_recording(
            tanh_network(), points(12), one_hot(12, K_OUT), epochs=2, learning_rate=0.1, seed=3
        )

    assert torch.equal(run().probabilities, run().probabilities)


def test_a_path_that_turns_back_is_a_zigzag():
    truth = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    straight = torch.tensor([[0.5, 0.5], [0.7, 0.3], [1.0, 0.0]])
    turning = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.0, 1.0]])
    path = torch.stack([straight, turning], dim=1)
    found = zigzag(path, truth, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert float(found[0]) == 0
    assert float(found[1]) == pytest.approx(0.9 * 2**0.5)
