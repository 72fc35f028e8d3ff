"""Networks that run in ways of their own: without a graph, twice, routed, compiled or scripted."""

from collections.abc import Callable

import pytest
import torch
from jacobian_helpers import check_features, kept_share, noise, relative_error
from reference import autograd_jacobian
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.jacobian import FeatureExtractor, jacobian_features
from pipeline.types import InputError

Middle = Callable[["Combined", Tensor], Tensor]


class Combined(nn.Module):
    """Two layers that ``middle`` combines, and a head."""

    def __init__(self, middle: Middle) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.middle(self, x)))


def stopped_below(net: Combined, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = net.first(x)
    return net.second(torch.tanh(y)) * net.second(y).detach()


def stopped_above(net: Combined, x: Tensor) -> Tensor:
    y = net.first(x)
    with torch.no_grad():
        gate = net.second(y)
    return y * gate


@pytest.mark.parametrize("middle", [stopped_below, stopped_above])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_uses_that_autograd_does_not_record_have_no_gradient(middle: Middle, share: float) -> None:
    check_features(Combined(middle), noise(3, 5), share)


def mapped(net: Combined, x: Tensor) -> Tensor:
    return torch.func.vmap(lambda one: net.second(torch.tanh(net.first(one))))(x)


def force(net: Combined, x: Tensor) -> Tensor:
    """Minus the gradient of an energy, as networks of molecules have it."""
    with torch.enable_grad():
        y = net.first(x).detach().requires_grad_()
        energy = torch.tanh(net.second(y)).sum()
        (gradient,) = torch.autograd.grad(energy, y, create_graph=True)
    return net.first(x) - gradient


@pytest.mark.parametrize("middle", [mapped, force])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_transforms_within_the_forward_pass_are_exact(middle: Middle, share: float) -> None:
    model, x = Combined(middle).double(), noise(3, 5)
    sketch = kept_share(model, share)
    wanted = autograd_jacobian(model, x)[:, sketch.indices]
    extract = FeatureExtractor(model, sketch)
    assert relative_error(extract(x).phi, wanted) < 1e-12
    assert "second.weight" in extract.fallback


def recomputed(reentrant: bool) -> Middle:
    def middle(net: Combined, x: Tensor) -> Tensor:
        return checkpoint(
            lambda y: net.second(torch.tanh(net.first(y))), x, use_reentrant=reentrant
        )

    return middle


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_is_refused(reentrant: bool) -> None:
    with pytest.raises(InputError, match="Switch activation checkpointing off"):
        jacobian_features(Combined(recomputed(reentrant)).double(), noise(3, 5))


class Experts(nn.Module):
    """Each sample goes through the expert that a gate chooses: batches of other lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(5, 2)
        self.experts = nn.ModuleList([nn.Linear(5, 6), nn.Linear(5, 6)])
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.gate(x).argmax(1)
        y = x.new_zeros(len(x), 6)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0]
            y = y.index_add(0, rows, torch.tanh(expert(x[rows])))
        return self.head(y)


@pytest.mark.parametrize("seed", range(4))
def test_samples_routed_to_experts_are_exact(seed: int) -> None:
    torch.manual_seed(seed)
    model, x = Experts().double(), noise(5, 5)
    assert relative_error(jacobian_features(model, x), autograd_jacobian(model, x)) <= 1e-12


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def test_compiled_networks_run_as_they_were_written() -> None:
    check_features(torch.compile(plain(), backend="eager"), noise(3, 5))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "make", [torch.jit.script, lambda model: torch.jit.trace(model, noise(3, 5))]
)
def test_scripted_networks_go_through_the_fallback(make: Callable[[nn.Module], nn.Module]) -> None:
    model, x = make(plain()), noise(3, 5)
    found = jacobian_features(model, x)
    wanted = jacobian_features(Unscripted(model), x)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


class Unscripted(nn.Module):
    """The same layers as plain Python."""

    def __init__(self, scripted: nn.Module) -> None:
        super().__init__()
        self.layers = plain()
        self.layers.load_state_dict(scripted.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
