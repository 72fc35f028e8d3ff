import pytest
import torch
from torch import nn

from pipeline.baselines.memory_format import place

IMAGES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Rows(nn.Module):
    """Views its activations as rows, as many networks of the CIFAR kind do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(len(x), -1)


def network(flatten: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), flatten, nn.Linear(144, 2)
    ).double()


@pytest.mark.parametrize(
    ("flatten", "together"), [(nn.Flatten(), True), (Rows(), False)], ids=["flatten", "view"]
)
@pytest.mark.parametrize("probed", [1, 2])
def test_channels_lie_together_where_the_network_takes_it_and_the_outputs_stay(
    flatten, together, probed
):
    images = IMAGES.double()
    expected = network(flatten).eval()(images)
    module = network(flatten).train()
    feed = place(module, list(images[:probed]), "cpu")
    fed = feed(images)
    assert fed.is_contiguous(memory_format=torch.channels_last) == together
    assert module[0].weight.is_contiguous() != together
    torch.testing.assert_close(module(fed), expected, rtol=1e-13, atol=1e-13)


def test_a_network_that_takes_no_such_images_is_refused_by_its_own_message():
    module = network(nn.Flatten())
    feed = place(module, list(IMAGES.double()[:2, :1]), "cpu")
    with pytest.raises(RuntimeError, match="expected input"):
        module(feed(IMAGES.double()[:, :1]))
