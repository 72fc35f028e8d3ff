from typing import Any

import pytest
import torch
from jacobian_helpers import relative_error, sketched
from reference import autograd_jacobian
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor
from pipeline.sketch import make_sketch


class TextNet(nn.Module):
    """Embedding, LayerNorm and a transposed convolution: layers with rules of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(23, 8)
        self.norm = nn.LayerNorm(8)
        self.up = nn.ConvTranspose1d(8, 4, 3, stride=2)
        self.head = nn.Linear(4, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.table(ids))).transpose(1, 2)
        return self.head(torch.tanh(self.up(x)).mean(2))


SKETCHES: list[tuple[str, dict[str, Any]]] = [
    ("uniform", {"size": 200}),
    ("stratified", {"size": 200}),
    ("layers", {"last": 2}),
    ("block", {"size": 200}),
    ("full", {}),
    ("kronecker", {"size": 200}),
    ("sjlt", {"size": 200}),
    ("sjlt", {"size": 50, "nonzeros": 3}),
]


@pytest.mark.parametrize(("kind", "options"), SKETCHES)
def test_every_sketch_of_images_equals_that_of_whole_gradients(
    convnet: nn.Module, images: Tensor, kind: str, options: dict[str, Any]
) -> None:
    sketch = make_sketch(kind, convnet, **options)
    wanted = sketched(sketch, convnet, autograd_jacobian(convnet, images))
    extract = FeatureExtractor(convnet, sketch)
    assert relative_error(extract(images).phi, wanted) < 1e-12
    assert not extract.fallback


@pytest.mark.parametrize(("kind", "options"), SKETCHES)
def test_every_sketch_of_texts_equals_that_of_whole_gradients(
    kind: str, options: dict[str, Any]
) -> None:
    model = TextNet().double()
    ids = torch.randint(0, 23, (3, 5))
    sketch = make_sketch(kind, model, **options)
    wanted = sketched(sketch, model, autograd_jacobian(model, ids))
    assert relative_error(FeatureExtractor(model, sketch)(ids).phi, wanted) < 1e-12


@pytest.mark.parametrize("kind", ["block", "kronecker", "sjlt"])
def test_all_outputs_go_through_every_form_of_sketch(
    convnet: nn.Module, images: Tensor, kind: str
) -> None:
    sketch = make_sketch(kind, convnet, size=100)
    found = FeatureExtractor(convnet, sketch, output="all")(images).phi
    for j in range(3):
        wanted = sketched(sketch, convnet, autograd_jacobian(convnet, images, j))
        assert relative_error(found[:, j], wanted) < 1e-12


def test_panels_cover_a_large_parameter(
    monkeypatch: pytest.MonkeyPatch, convnet: nn.Module, images: Tensor
) -> None:
    monkeypatch.setattr("pipeline.jacobian.plan.PANEL_ENTRIES", 40)
    sketch = make_sketch("sjlt", convnet, size=100)
    wanted = sketched(sketch, convnet, autograd_jacobian(convnet, images))
    assert relative_error(FeatureExtractor(convnet, sketch)(images).phi, wanted) < 1e-12


def test_sketched_kernels_are_unbiased_and_spread_as_their_size_says(
    convnet: nn.Module, images: Tensor
) -> None:
    phi = autograd_jacobian(convnet, images)
    K = phi @ phi.T
    kernels = []
    for seed in range(60):
        sketch = make_sketch("uniform", convnet, size=100, seed=seed)
        weighted = FeatureExtractor(convnet, sketch)(images).phi * sketch.column_weights
        kernels.append(weighted @ weighted.T)
    stacked = torch.stack(kernels)
    standard_error = stacked.std(0) / len(kernels) ** 0.5
    assert bool(((stacked.mean(0) - K).abs() < 4 * standard_error).all())
