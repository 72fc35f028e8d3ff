import pytest
import torch

from pipeline.analyses.width_networks import ARCHITECTURES, backbone_of, make_network, smooth
from pipeline.types import InputError

IMAGE = torch.Size((3, 16, 16))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_is_its_head_after_its_backbone(name):
    model = make_network(name, IMAGE, 8, 5, seed=0)
    x = torch.randn(2, *IMAGE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = backbone_of(model)(x)
        torch.testing.assert_close(model.fc(z), model(x))
    assert not model.training


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_seed_decides_the_weights(name):
    first, same, other = (make_network(name, IMAGE, 8, 5, seed) for seed in (1, 1, 2))
    assert torch.equal(first.fc.weight, same.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="fully_connected"):
        make_network("transformer", IMAGE, 8, 5, 0)


def test_a_smooth_network_has_no_relu_and_the_same_weights():
    model, rectified = (make_network("resnet", IMAGE, 4, 5, seed=0) for _ in range(2))
    assert not any(isinstance(module, torch.nn.ReLU) for module in smooth(model).modules())
    assert torch.equal(model.fc.weight, rectified.fc.weight)
