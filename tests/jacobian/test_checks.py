"""Mistakes that are told before any pass."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jacobian_helpers import noise
from torch import Tensor, nn

from pipeline.jacobian import JacobianOperator, jacobian_features
from pipeline.types import InputError

Run = Callable[[Any, Any], Any]
ENTRIES: list[Run] = [jacobian_features, JacobianOperator]


@pytest.mark.parametrize("run", ENTRIES)
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (noise(0, 3), "at least one sample"),
        (noise(4, 3).numpy(), "found inputs: ndarray"),
        (torch.tensor(1.0), "found inputs: a number"),
        ({}, "an empty mapping"),
        ({"input": noise(4, 3), "training": True}, "found training: bool"),
        ({"input": noise(4, 3), "mask": noise(3, 3)}, "input of 4, mask of 3"),
    ],
)
def test_what_is_no_batch_is_refused(run: Run, inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(nn.Linear(3, 2).double(), inputs)


@pytest.mark.parametrize("run", ENTRIES)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: x, "an nn.Module; found a function"),
        (nn.Linear(3, 2, device="meta"), "weight lies on the meta device"),
        (nn.LSTM(3, 3, 2, dropout=0.5), "the network is a LSTM with active dropout"),
    ],
)
def test_what_is_no_network_is_refused(run: Run, model: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(model, noise(4, 3))


def test_a_layer_that_is_called_dropout_is_none_of_the_number() -> None:
    # Transformers' attention layers keep their Dropout under that name.
    model = nn.Sequential()
    model.dropout = nn.Dropout(0.1)
    with pytest.raises(InputError, match="dropout is an active Dropout"):
        jacobian_features(nn.Sequential(nn.Linear(3, 2), model).train(), noise(4, 3))


class Stopped(nn.Linear):
    """Runs without a graph."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def test_an_output_without_a_derivative_is_refused_and_not_zero() -> None:
    x = noise(4, 3)
    with pytest.raises(InputError, match="no derivative by any parameter"):
        jacobian_features(Stopped(3, 2).double(), x)
    with pytest.raises(InputError, match="no derivative by any parameter"):
        jacobian_features(nn.Linear(3, 2).double(), x, output=lambda f: f[:, 0].detach())


def test_the_callers_grad_mode_and_graph_do_not_matter() -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), noise(4, 3)
    wanted = jacobian_features(model, x)
    with torch.inference_mode():
        found = [jacobian_features(model, x), jacobian_features(model, x.clone())]
    found.append(jacobian_features(model, x.clone().requires_grad_()))
    for each in found:
        torch.testing.assert_close(each.clone(), wanted)
        assert not each.requires_grad
