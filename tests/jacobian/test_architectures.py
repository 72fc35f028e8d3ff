"""Networks of transformers, tiny and random, against single backward passes in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jacobian_helpers import kept_share, relative_error
from reference import autograd_jacobian
from tiny_transformers import IMAGE_NETWORKS, TEXT_NETWORKS, bert, gpt2, randomized, texts
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
@pytest.mark.parametrize("share", [1.0, 0.05])
def test_image_networks_equal_autograd_without_fallback(name: str, share: float) -> None:
    model = randomized(IMAGE_NETWORKS[name]())
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    sketch = kept_share(model, share)
    extract = FeatureExtractor(model, sketch)
    wanted = autograd_jacobian(model, images)[:, sketch.indices]
    assert relative_error(extract(images).phi, wanted) < 1e-11
    assert not extract.fallback


@pytest.mark.parametrize("name", TEXT_NETWORKS)
@pytest.mark.parametrize("share", [1.0, 0.05])
@pytest.mark.parametrize("lengths", [[9, 5, 7], [6, 6], [4]])
def test_text_networks_equal_autograd_with_masks(
    name: str, share: float, lengths: list[int]
) -> None:
    model = randomized(TEXT_NETWORKS[name]())
    inputs = texts(lengths)
    sketch = kept_share(model, share)
    extract = FeatureExtractor(model, sketch)
    wanted = autograd_jacobian(model, inputs)[:, sketch.indices]
    assert relative_error(extract(inputs).phi, wanted) < 1e-11
    assert not extract.fallback


def padded_in_front(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.flip(1) for name, tensor in inputs.items()}


def with_segments(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**inputs, "token_type_ids": (torch.arange(9) > 3).long().expand(3, -1)}


def as_embeddings(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    embedded = torch.randn(*inputs["input_ids"].shape, 16, dtype=torch.float64)
    return {"inputs_embeds": embedded, "attention_mask": inputs["attention_mask"]}


@pytest.mark.parametrize(
    ("make", "change"),
    [(gpt2, padded_in_front), (bert, with_segments), (bert, as_embeddings)],
)
def test_texts_in_other_forms_equal_autograd(
    make: Callable[[], nn.Module], change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    model, inputs = randomized(make()), change(texts([9, 5, 7]))
    extract = FeatureExtractor(model)
    assert relative_error(extract(inputs).phi, autograd_jacobian(model, inputs)) < 1e-11
    assert not extract.fallback


@pytest.mark.parametrize("side", [28, 26])
def test_windows_that_do_not_tile_the_image_are_exact(side: int) -> None:
    config = transformers.SwinConfig(
        image_size=side, patch_size=2, embed_dim=8, depths=[2], num_heads=[2],
        window_size=4, num_labels=3,
    )  # fmt: skip
    model = randomized(transformers.SwinForImageClassification(config))
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    wanted = autograd_jacobian(model, images)
    assert relative_error(FeatureExtractor(model)(images).phi, wanted) < 1e-11


def test_texts_of_other_lengths_follow_in_later_batches() -> None:
    model = randomized(bert())
    extract = FeatureExtractor(model, kept_share(model, 0.2))
    for lengths in ([9, 5, 7], [3], [5, 5, 5, 5, 2]):
        inputs = texts(lengths)
        wanted = autograd_jacobian(model, inputs)[:, kept_share(model, 0.2).indices]
        assert relative_error(extract(inputs).phi, wanted) < 1e-11


def test_smooth_networks_are_exact_to_float32() -> None:
    model = randomized(IMAGE_NETWORKS["vit"]())
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    wanted = autograd_jacobian(model, images)
    found = FeatureExtractor(model.float())(images.float()).phi.double()
    errors: Any = (found - wanted).norm(dim=1) / wanted.norm(dim=1)
    assert float(errors.max()) < 1e-5
