"""Parameters that no rule covers, and rules of one's own."""

import logging

import pytest
import torch
from jacobian_helpers import Headed, check_features, kept_share, noise, relative_error
from reference import autograd_jacobian
from torch import Tensor, nn

from pipeline.jacobian import Call, FeatureExtractor, Gradient, Selection, jacobian_features, rule
from pipeline.sketch import make_sketch


class Warp(nn.Module):
    """A layer of one's own, of functions that no rule knows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.power = nn.Parameter(1 + torch.rand(width))
        self.mixing = nn.Parameter(torch.randn(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...d,de->...e", (x.square() + 1) ** self.power, self.mixing)


class ValueDependent(Warp):
    """Its steps depend on the values: ``vmap`` cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.detach()[0].sum()) > 1e9 else torch.tanh(x))


WARP = ("layer.1.power", "layer.1.mixing")


def warped(layer: type[Warp] = Warp) -> nn.Module:
    return Headed(nn.Sequential(nn.Linear(5, 4), layer(4), nn.Tanh(), nn.Linear(4, 3)))


@pytest.mark.parametrize("layer", [Warp, ValueDependent])
@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("shape", [(3, 5), (1, 5), (2, 3, 5)])
def test_layers_without_a_rule_are_exact(
    layer: type[Warp], share: float, shape: tuple[int, ...]
) -> None:
    check_features(warped(layer), noise(*shape), share, fallback=WARP)


def test_the_fallback_is_logged_once_by_name(caplog: pytest.LogCaptureFixture) -> None:
    extract = FeatureExtractor(warped().double())
    with caplog.at_level(logging.INFO, "pipeline.jacobian"):
        for n in (3, 1, 4):
            extract(noise(n, 5))
    for name in WARP:
        assert caplog.text.count(name) == 1
    assert "layer.0.weight" not in caplog.text
    assert set(extract.fallback) == set(WARP)


def test_parameters_that_the_sketch_leaves_out_need_no_fallback() -> None:
    model = warped().double()
    sketch = make_sketch("layers", model, names=["layer.0", "layer.3.weight"])
    extract = FeatureExtractor(model, sketch)
    x = noise(3, 5)
    assert relative_error(extract(x).phi, autograd_jacobian(model, x)[:, sketch.indices]) <= 1e-10
    assert not extract.fallback


@pytest.mark.parametrize("layer", [Warp, ValueDependent])
def test_the_fallback_computes_every_output(layer: type[Warp]) -> None:
    model, x = warped(layer).double(), noise(3, 5)
    sketch = kept_share(model, 0.5)
    found = jacobian_features(model, x, sketch, output="all")
    for j in range(2):
        wanted = autograd_jacobian(model, x, j)[:, sketch.indices]
        assert relative_error(found[:, j], wanted) <= 1e-10


class Gated(nn.Module):
    """Named inputs, one of them of integers, and a layer without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.bilinear = nn.Bilinear(4, 4, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.table(input_ids) * attention_mask[..., None]
        return self.bilinear(x.sum(1), x.square().sum(1))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_named_inputs_reach_the_fallback() -> None:
    model = Gated().double()
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]])
    inputs = {"input_ids": torch.randint(0, 7, (3, 3)), "attention_mask": mask}
    extract = FeatureExtractor(model)
    assert relative_error(extract(inputs).phi, autograd_jacobian(model, inputs)) <= 1e-10
    assert set(extract.fallback) == {"bilinear.weight", "bilinear.bias"}


class Read(nn.Module):
    """A recurrent layer and a bag of embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(9, 4, mode="sum")
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.head = nn.Linear(7, 2)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.lstm(self.bag.weight[ids])
        return self.head(torch.cat([states[:, -1], self.bag(ids)], 1))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_recurrent_layers_and_bags_are_exact(n: int, share: float) -> None:
    model, ids = Read().double(), torch.randint(0, 9, (n, 5))
    sketch = kept_share(model, share)
    found = jacobian_features(model, ids, sketch)
    assert relative_error(found, autograd_jacobian(model, ids)[:, sketch.indices]) <= 1e-10


# --- rules of one's own ----------------------------------------------------------------------


class Ruled(Warp):
    """The same layer, with rules for its parameters."""


@rule(Ruled, argument="power")
def ruled_power(call: Call, keep: Selection) -> Gradient:
    base, mixing = call.save(call["x"].square() + 1), call["mixing"]
    exponent = call["power"]

    def gradient(grad: Tensor) -> Tensor:
        inner = (grad @ mixing.T) * base() ** exponent * base().log()
        return keep.finish(call.per_sample(keep.channels(inner, -1)).sum(1))

    return gradient


@rule(Ruled, argument="mixing")
def ruled_mixing(call: Call, keep: Selection) -> Gradient:
    powers = call.save(keep.cut_rows((call["x"].square() + 1) ** call["power"], -1))

    def gradient(grad: Tensor) -> Tensor:
        right = call.per_sample(keep.cut_columns(grad, -1)).transpose(1, 2)
        return keep.contract(call.per_sample(powers()).transpose(1, 2), right)

    return gradient


class Misruled(Warp):
    """The same layer, with one rule that is wrong by a factor."""


@rule(Misruled, argument="mixing")
def misruled_mixing(call: Call, keep: Selection) -> Gradient:
    gradient = ruled_mixing(call, keep)
    return lambda grad: 2 * gradient(grad)


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5)])
def test_a_module_with_rules_of_its_own_needs_no_fallback(
    share: float, shape: tuple[int, ...]
) -> None:
    check_features(warped(Ruled), noise(*shape), share)


@pytest.mark.parametrize("kind", ["uniform", "block", "kronecker", "sjlt"])
def test_every_form_of_sketch_is_the_same_with_and_without_rules(kind: str) -> None:
    with_rules, without = warped(Ruled).double(), warped().double()
    without.load_state_dict(with_rules.state_dict())
    sketch, x = make_sketch(kind, without, size=40), noise(3, 5)
    extract = FeatureExtractor(without, sketch)
    found = extract(x).phi
    assert relative_error(jacobian_features(with_rules, x, sketch), found) <= 1e-10
    assert extract.fallback


def test_a_rule_that_is_wrong_is_caught_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pipeline.jacobian"):
        check_features(warped(Misruled), noise(3, 5), fallback=WARP)
    assert "layer.1.mixing (its values differ from autograd's)" in caplog.text
