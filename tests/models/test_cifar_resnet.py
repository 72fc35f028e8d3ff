import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from pipeline.models import cifar_resnet
from pipeline.models.cifar_resnet import CifarResNet, CifarResNetOptions, Subsample
from pipeline.types import InputError


@pytest.mark.parametrize(
    ("depth", "shortcut", "parameters"),
    # He et al.: 0.27 million for depth 20, 0.85 million for 56 (both option A).
    [(20, "A", 269_722), (56, "A", 853_018), (20, "B", 272_474), (8, "A", 75_290)],
)
def test_the_parameter_count_is_the_papers(depth, shortcut, parameters):
    module = CifarResNet(depth, shortcut)
    assert sum(p.numel() for p in module.parameters()) == parameters


def test_option_a_takes_every_second_pixel_and_pads_channels_on_both_sides():
    x = torch.randn(2, 3, 5, 4)
    out = Subsample(3)(x)
    assert out.shape == (2, 6, 3, 2)
    assert torch.equal(out[:, 1:4], x[:, :, ::2, ::2])
    assert torch.equal(out[:, [0, 4, 5]], torch.zeros(2, 3, 3, 2))


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_a_block_is_the_formula_of_the_paper(shortcut):
    torch.manual_seed(0)
    block = CifarResNet(8, shortcut).layer2[0].eval()
    x = torch.randn(2, 16, 8, 8)
    out = functional.relu(block.bn1(functional.conv2d(x, block.conv1.weight, stride=2, padding=1)))
    out = block.bn2(functional.conv2d(out, block.conv2.weight, padding=1))
    if shortcut == "A":
        other = torch.zeros(2, 32, 4, 4)
        other[:, 8:24] = x[:, :, ::2, ::2]
    else:
        other = block.downsample[1](functional.conv2d(x, block.downsample[0].weight, stride=2))
    torch.testing.assert_close(block(x), functional.relu(out + other))


@pytest.mark.parametrize("depth", [0, 2, 18, 21, -4, 1208])
def test_a_depth_that_is_not_6n_plus_2_or_beyond_the_papers_is_refused(depth):
    with pytest.raises(ValueError, match="6n"):
        CifarResNetOptions(depth=depth)


def test_names_in_circulation_become_ours():
    state = {"linear.bias": torch.ones(1), "layer2.0.shortcut.0.weight": torch.ones(1), "conv1": 0}
    assert set(cifar_resnet.renamed(state)) == {
        "fc.bias",
        "layer2.0.downsample.0.weight",
        "conv1",
    }


def test_a_round_trip_through_a_file_gives_the_same_network(tmp_path):
    first = cifar_resnet.build(CifarResNetOptions(depth=8, shortcut="B", seed=3))
    torch.save(first.module.state_dict(), tmp_path / "w.pt")
    options = CifarResNetOptions(depth=8, shortcut="B", weights=tmp_path / "w.pt")
    assert cifar_resnet.build(options).provenance() == first.provenance()


# 2,000 images: one standard error is about 0.6 and 1.0 points; the whole test sets, 10,000
# images each, gave 91.73, 93.39 and 71.20 %.
REAL = [
    ("cifar10_resnet20.th", 20, "A", 10, 269_722),
    ("cifar10_resnet56.th", 56, "A", 10, 853_018),
    ("cifar100_resnet56.pth", 56, "B", 100, 861_620),
]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
ACCURACY = [
    (REAL[0], "cifar10", "label", IMAGENET, 0.9173),
    (REAL[1], "cifar10", "label", IMAGENET, 0.9339),
    (REAL[2], "cifar100", "fine_label", HALF, 0.7120),
]


def built(folder, file, depth, shortcut):
    options = CifarResNetOptions(depth=depth, shortcut=shortcut, weights=folder / "weights" / file)
    return cifar_resnet.build(options)


@pytest.mark.parametrize(("file", "depth", "shortcut", "classes", "parameters"), REAL)
def test_real_checkpoints_load_whole(real_data, file, depth, shortcut, classes, parameters):
    network = built(real_data, file, depth, shortcut)
    assert network.outputs == classes
    assert sum(p.numel() for p in network.module.parameters()) == parameters
    assert not network.untrained_head


def test_the_wrong_shortcut_option_is_refused_with_names(real_data):
    with pytest.raises(InputError, match=r"layer2\.0\.downsample\.0\.weight"):
        built(real_data, "cifar100_resnet56.pth", 56, "A")
    with pytest.raises(InputError, match=r"Missing .*layer2\.0\.downsample\.0\.weight"):
        built(real_data, "cifar10_resnet20.th", 20, "B")


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoint", "dataset", "column", "norm", "accuracy"), ACCURACY)
def test_real_checkpoints_reach_their_published_accuracy(
    real_data, checkpoint, dataset, column, norm, accuracy
):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(real_data / dataset / "test-00000-of-00001.parquet")
    pixels = [
        np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB"))
        for cell in table["image"].to_pylist()
    ]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in norm)
    images = (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255 - mean) / std
    module = built(real_data, *checkpoint[:3]).module
    with torch.no_grad():
        found = torch.cat([module(batch).argmax(1) for batch in images.split(250)])
    correct = (found.numpy() == table[column].to_numpy()).mean()
    assert correct == pytest.approx(accuracy, abs=0.0005)
