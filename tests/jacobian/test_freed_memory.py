"""What a pass leaves behind, and what it holds meanwhile."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from jacobian_helpers import kept_share
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor, rule
from pipeline.jacobian.call import Call, Gradient
from pipeline.jacobian.columns import Columns
from pipeline.jacobian.selection import Selection
from pipeline.sketch import make_sketch


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Inside, only reference counts free memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Watched(nn.Module):
    """Remembers, weakly, what the wrapped network's leaves put out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.outputs: list[Any] = []
        for module in network.modules():
            if not any(True for _ in module.children()):
                module.register_forward_hook(self._note)

    def _note(self, _: nn.Module, __: Any, output: Tensor) -> None:
        self.outputs.append(weakref.ref(output))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("kind", ["uniform", "block", "kronecker", "sjlt", "full"])
def test_a_pass_frees_its_activations_without_the_garbage_collector(
    convnet: nn.Module, images: Tensor, kind: str
) -> None:
    model = Watched(convnet)
    size = None if kind == "full" else 100
    extract = FeatureExtractor(model, make_sketch(kind, model, size=size))
    extract(images)  # the first batch teaches; exceptions may hold what they saw
    gc.collect()
    model.outputs.clear()
    phi = extract(images).phi
    assert model.outputs, "nothing is watched"
    assert not [ref for ref in model.outputs if ref() is not None]
    assert phi.shape[0] == len(images)


def test_a_rule_that_reads_its_input_too_late_says_what_to_do() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    @rule(Late, argument="scale")
    def late(call: Call, keep: Selection) -> Gradient:
        return lambda grad: keep.finish(keep.channels(grad * call["x"], -1))

    model = nn.Sequential(nn.Linear(3, 4), Late(), nn.Linear(4, 2)).double()
    with pytest.raises(RuntimeError, match=r"call\.save"):
        FeatureExtractor(model, kept_share(model, 1.0))(torch.randn(2, 3, dtype=torch.float64))


@pytest.mark.usefixtures("no_collector")
def test_each_outputs_columns_are_freed_as_they_are_put_together(
    convnet: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[Columns]] = []
    alive = []
    finish = Columns.finished

    def finished(self: Columns) -> Tensor:
        seen.append(weakref.ref(self))
        alive.append(sum(ref() is not None for ref in seen))
        return finish(self)

    monkeypatch.setattr(Columns, "finished", finished)
    FeatureExtractor(convnet, output="all")(images)
    assert len(alive) == 3
    assert max(alive) <= 2
