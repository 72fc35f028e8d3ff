import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn import functional

from pipeline.models import small_cnn
from pipeline.models.small_cnn import SmallCNN, SmallCNNOptions
from pipeline.types import InputError


def test_the_default_network_is_small():
    network = small_cnn.build(SmallCNNOptions())
    assert sum(p.numel() for p in network.module.parameters()) == 25_866
    assert (network.width, network.outputs) == (256, 10)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (SmallCNNOptions(), (1, 1, 8, 8)),
        (SmallCNNOptions(widths=(4,)), (3, 1, 5, 5)),
        (SmallCNNOptions(channels=3, widths=(4, 6), activation="relu"), (2, 3, 11, 9)),
    ],
)
def test_any_widths_and_image_sizes_give_logits(options, shape):
    assert small_cnn.build(options).module(torch.randn(shape)).shape == (shape[0], 10)


def test_a_few_epochs_learn_digits():
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    module = small_cnn.build(SmallCNNOptions()).module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(0)
    for _ in range(15):
        for rows in torch.randperm(1200, generator=order).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(module(images[rows]), labels[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        assert (module(images[1200:]).argmax(1) == labels[1200:]).float().mean() > 0.88


def test_trained_weights_load_with_their_number_of_classes(tmp_path):
    module = SmallCNN(classes=5)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    network = small_cnn.build(SmallCNNOptions(weights=tmp_path / "w.safetensors"))
    assert network.outputs == 5
    assert torch.equal(network.module.features[0].weight, module.features[0].weight)


def test_weights_of_other_widths_are_refused_by_name(tmp_path):
    save_file(SmallCNN().state_dict(), tmp_path / "w.safetensors")
    options = SmallCNNOptions(widths=(8, 32, 64), weights=tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"features\.0\.weight is \(16, 1, 3, 3\)"):
        small_cnn.build(options)


def test_a_head_without_two_axes_is_refused_by_name(tmp_path):
    state = SmallCNN().state_dict() | {"fc.weight": torch.tensor(1.0)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"fc\.weight is \(\), expected \(10, 256\)"):
        small_cnn.build(SmallCNNOptions(weights=tmp_path / "w.safetensors"))
