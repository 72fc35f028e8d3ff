import pytest
import torch

from pipeline.models import squeezenet
from pipeline.models.squeezenet import SqueezeNet, SqueezeNetOptions
from pipeline.types import InputError


def test_the_features_have_torchvisions_names_and_number_of_parameters():
    module = SqueezeNet()
    assert sum(p.numel() for p in module.features.parameters()) == 722_496
    fires = (3, 4, 6, 7, 9, 10, 11, 12)
    convolutions = ["0"] + [
        f"{i}.{name}" for i in fires for name in ("squeeze", "expand1x1", "expand3x3")
    ]
    expected = [f"features.{c}.{part}" for c in convolutions for part in ("weight", "bias")]
    assert list(module.state_dict()) == [*expected, "fc.weight", "fc.bias"]


def test_the_real_checkpoint_fills_the_features_and_leaves_no_head_to_keep(real_data):
    path = real_data / "weights" / "squeezenet1_1_imagenet_features.pth"
    network = squeezenet.build(SqueezeNetOptions(weights=path))
    raw = torch.load(path, weights_only=True)
    assert all(torch.equal(network.module.state_dict()[name], raw[name]) for name in raw)
    assert network.untrained_head
    assert network.seen_target_labels
    assert network.width == 512


def test_torchvisions_convolutional_classifier_is_left_out(tmp_path):
    state = {n: t for n, t in SqueezeNet().state_dict().items() if n.startswith("features.")}
    state["classifier.1.weight"] = torch.ones(1000, 512, 1, 1)
    state["classifier.1.bias"] = torch.ones(1000)
    torch.save(state, tmp_path / "w.pth")
    assert squeezenet.build(SqueezeNetOptions(weights=tmp_path / "w.pth")).untrained_head


def test_a_saved_network_of_ours_keeps_its_head(tmp_path):
    module = SqueezeNet(classes=14)
    torch.save(module.state_dict(), tmp_path / "w.pth")
    network = squeezenet.build(SqueezeNetOptions(weights=tmp_path / "w.pth"))
    assert torch.equal(network.head_module.weight, module.fc.weight)
    assert not network.untrained_head


def test_a_checkpoint_with_a_missing_layer_is_refused_by_name(tmp_path):
    state = SqueezeNet().state_dict()
    del state["features.7.squeeze.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"Missing in the file \(1\): features\.7\.squeeze\.bias"):
        squeezenet.build(SqueezeNetOptions(weights=tmp_path / "w.pth"))


@pytest.mark.parametrize("side", [64, 65, 224])
def test_any_image_of_photo_size_gives_logits(side):
    network = squeezenet.build(SqueezeNetOptions())
    with torch.no_grad():
        assert network.module(torch.zeros(1, 3, side, side)).shape == (1, 1000)
