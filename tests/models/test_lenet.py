import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.models import lenet
from pipeline.models.lenet import LeNetOptions


def test_the_layers_are_lenet_5s():
    network = lenet.build(LeNetOptions())
    assert sum(p.numel() for p in network.module.parameters()) == 61_706
    assert (network.head, network.width, network.outputs) == ("fc.f7", 84, 10)
    assert network.module(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


def test_the_real_checkpoint_reads_digits(real_data):
    network = lenet.build(LeNetOptions(weights=real_data / "weights" / "mnist_lenet5.pth"))
    with np.load(real_data / "mnist" / "mnist_12k.npz") as archive:
        images = torch.from_numpy(archive["test_images"]) / 255
        labels = torch.from_numpy(archive["test_labels"])
    with torch.no_grad():
        found = network.module(functional.pad(images, (2, 2, 2, 2))[:, None]).argmax(1)
    assert (found == labels).float().mean().item() == pytest.approx(0.984, abs=0.001)
