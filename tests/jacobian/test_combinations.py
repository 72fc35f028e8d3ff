"""Every architecture with every kind of sketch and output, against single backward passes."""

from typing import Any

import pytest
import torch
from jacobian_helpers import relative_error, sketched
from reference import explicit_jacobian
from tiny_transformers import IMAGE_NETWORKS, TEXT_NETWORKS, randomized, texts
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor
from pipeline.jacobian.outputs import direction
from pipeline.models.cifar_resnet import CifarResNet
from pipeline.sketch import make_sketch
from pipeline.types import Inputs, slice_inputs

OUTPUTS = 3
KINDS: dict[str, dict[str, Any]] = {
    "uniform": {"size": 300},
    "stratified": {"size": 300},
    "layers": {"last": 2},
    "block": {"size": 600},
    "kronecker": {"size": 600},
    "sjlt": {"size": 100},
    "full": {},
}


class CifarNetwork(nn.Module):
    """A CIFAR ResNet of few layers with a head of three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = CifarResNet(8, "A")
        self.head = nn.Linear(self.body(torch.zeros(1, 3, 8, 8)).shape[1], OUTPUTS)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


NETWORKS = {**IMAGE_NETWORKS, "cifar_resnet": CifarNetwork, **TEXT_NETWORKS}
# It normalizes in float32 whatever its dtype: a sum of logits is rounded before it is added up.
del NETWORKS["llama"]


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Inputs, Tensor]:
    """A network, three samples, and their whole Jacobian (3, k, P)."""
    torch.manual_seed(0)
    name = request.param
    model = randomized(NETWORKS[name]())
    inputs: Inputs = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    if name in TEXT_NETWORKS:
        inputs = texts([7, 4, 6])
    return model, inputs, explicit_jacobian(model, inputs, OUTPUTS).unflatten(0, (3, OUTPUTS))


@pytest.mark.parametrize("kind", KINDS)
def test_every_sketch_of_every_architecture_is_exact(
    case: tuple[nn.Module, Inputs, Tensor], kind: str
) -> None:
    model, inputs, jacobian = case
    sketch = make_sketch(kind, model, **KINDS[kind])
    wanted = sketched(sketch, model, jacobian[:, 0])
    extract = FeatureExtractor(model, sketch)
    # Three first, then fewer than the plan was tried on.
    for n in (3, 1, 2):
        found = extract(slice_inputs(inputs, slice(n))).phi
        assert relative_error(found, wanted[:n]) <= 1e-10
    assert not extract.fallback


@pytest.mark.parametrize("output", ["all", "sum", "random_direction", 2, lambda f: f.logsumexp(1)])
def test_every_output_of_every_architecture_is_exact(
    case: tuple[nn.Module, Inputs, Tensor], output: Any
) -> None:
    model, inputs, jacobian = case
    sketch = make_sketch("uniform", model, size=300)
    found = FeatureExtractor(model, sketch, output=output, seed=5)(inputs)
    kept = jacobian[:, :, sketch.indices]
    shares = {
        "sum": torch.ones(OUTPUTS).double() / OUTPUTS**0.5,
        "random_direction": direction(OUTPUTS, 5),
        2: torch.eye(OUTPUTS)[2],
    }
    if output == "all":
        wanted = kept
    elif callable(output):
        wanted = torch.einsum("nk,nkp->np", found.f0.softmax(1), kept)
    else:
        wanted = torch.einsum("k,nkp->np", shares[output].double(), kept)
    assert relative_error(found.phi, wanted) <= 1e-10
