"""A batch leaves nothing in memory but its features, however many batches there are."""

import gc

import pytest
import torch
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor
from pipeline.jacobian.checks import NonFiniteSamplesError
from pipeline.models.cifar_resnet import CifarResNet
from pipeline.sketch import make_sketch


def in_place_network() -> nn.Module:
    """Convolutions with BatchNorm and in-place activations, and a normalized transformer layer."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Flatten(2),
        nn.TransformerEncoderLayer(36, 2, 16, batch_first=True),
        nn.Flatten(),
        nn.Linear(144, 3),
    )


def resnet() -> nn.Module:
    return CifarResNet(8, "A", classes=3)


def images(model: nn.Module, n: int) -> Tensor:
    side = 32 if isinstance(model, CifarResNet) else 8
    return torch.randn(n, 3, side, side)


def live_bytes() -> int:
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if isinstance(thing, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("network", [resnet, in_place_network])
@pytest.mark.parametrize("kind", ["uniform", "block", "full"])
@pytest.mark.parametrize("output", [0, "all"])
def test_memory_does_not_grow_with_the_batches(network, kind, output):
    torch.manual_seed(0)
    model = network().eval()
    size = None if kind == "full" else 300
    extract = FeatureExtractor(model, make_sketch(kind, model, size, 0), output=output)
    batch = images(model, 5)
    for _ in range(2):  # the first learns about the network
        extract(batch)
    before = live_bytes()
    for _ in range(3):
        extract(batch)
    assert live_bytes() == before


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_refused_batch_leaves_nothing_either():
    model = resnet().eval()
    extract = FeatureExtractor(model, make_sketch("uniform", model, 300, 0))
    batch = images(model, 5)
    extract(batch)
    broken = batch.clone()
    broken[2] = torch.nan
    with pytest.raises(NonFiniteSamplesError):
        extract(broken)
    before = live_bytes()
    for _ in range(3):
        with pytest.raises(NonFiniteSamplesError):
            extract(broken)
    assert live_bytes() == before
