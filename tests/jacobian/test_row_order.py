"""Networks that choose rows by an index: tokens of experts, padding taken out, pooled positions."""

from collections.abc import Callable

import pytest
import torch
from jacobian_helpers import noise, relative_error
from reference import autograd_jacobian
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor

Route = Callable[["Experts", Tensor, Tensor], Tensor]


def by_number(net: "Experts", x: Tensor, second: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    for expert, chosen in ((net.first, ~second), (net.second, second)):
        rows = chosen.nonzero()[:, 0]
        y = y.index_add(0, rows, torch.tanh(expert(x.index_select(0, rows))))
    return y


def by_mask(net: "Experts", x: Tensor, second: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    for expert, chosen in ((net.first, ~second), (net.second, second)):
        y[chosen] = torch.tanh(expert(x[chosen]))
    return y


def by_sorting(net: "Experts", x: Tensor, second: Tensor) -> Tensor:
    order = second.long().argsort(stable=True)
    rest, chosen = x[order].split([int((~second).sum()), int(second.sum())])
    return torch.tanh(torch.cat([net.first(rest), net.second(chosen)]))[order.argsort()]


class Experts(nn.Module):
    """Tokens whose first feature is positive go through the second expert."""

    def __init__(self, route: Route) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
        self.route = route

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        y = self.route(self, self.stem(tokens), tokens[:, 0] > 0)
        return self.head(y.view(x.shape).tanh().sum(1))


@pytest.mark.parametrize("route", [by_number, by_mask, by_sorting])
def test_tokens_of_experts_are_exact_in_batches_unlike_the_first(route: Route) -> None:
    torch.manual_seed(0)
    model = Experts(route).double()
    extract = FeatureExtractor(model)
    x = noise(3, 2, 4)
    x[..., 0] = -x[..., 0].abs()
    extract(x)  # one expert takes all: as many rows a sample, in order
    x[0, :, 0] *= -1
    x[2, 0, 0] *= -1  # the second takes as many rows as there are samples, none of sample 1
    assert relative_error(extract(x).phi, autograd_jacobian(model, x)) < 1e-12
    assert {"second.weight", "second.bias"} <= set(extract.fallback)
    assert "stem.weight" not in extract.fallback


class Unpadded(nn.Module):
    """Runs a layer on the tokens that a mask keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        kept = mask.flatten().nonzero()[:, 0]
        y = torch.zeros_like(tokens).index_copy(0, kept, torch.tanh(self.layer(tokens[kept])))
        return self.head(y.view(x.shape).sum(1))


def test_tokens_without_padding_are_exact() -> None:
    model = Unpadded().double()
    extract, x = FeatureExtractor(model), noise(3, 4, 4)
    for lengths in ([4, 4, 4], [4, 1, 1], [1, 2, 3], [2, 2, 2]):
        mask = torch.arange(4) < torch.tensor(lengths)[:, None]
        inputs = {"x": x, "mask": mask}
        wanted = autograd_jacobian(model, inputs)
        assert relative_error(extract(inputs).phi, wanted) < 1e-12
    assert "head.weight" not in extract.fallback


class Pooled(nn.Module):
    """Takes one position of each sample, where its length says."""

    def __init__(self, pool: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        last = (x[..., 0] > 0).long().sum(1).clamp(max=x.shape[1] - 1)
        return self.head(self.pool(torch.tanh(self.layer(x)), last))


@pytest.mark.parametrize(
    "pool",
    [
        lambda y, last: y[torch.arange(len(y)), last],
        lambda y, last: y[torch.arange(y.shape[1]) == last[:, None]],
        lambda y, last: y[torch.arange(y.shape[1]) == last[:, None], :].view(len(y), -1, 4)[:, -1],
    ],
)
def test_one_position_of_each_sample_keeps_to_the_rules(
    pool: Callable[[Tensor, Tensor], Tensor],
) -> None:
    model = Pooled(pool).double()
    extract = FeatureExtractor(model)
    for n in (2, 5, 1):
        x = noise(n, 3, 4)
        assert relative_error(extract(x).phi, autograd_jacobian(model, x)) < 1e-12
    assert not extract.fallback
