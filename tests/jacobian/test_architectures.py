"""Networks of transformers, tiny and random, against single backward passes in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jacobian_helpers import kept_share, relative_error
from reference import autograd_jacobian
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 3}
WIDE = {**SMALL, "intermediate_size": 24}
IMAGE = {"image_size": 32, "patch_size": 8}


class ImageTower(nn.Module):
    """CLIP's image tower as a network of embeddings."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.CLIPVisionConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            projection_dim=3, **IMAGE,
        )  # fmt: skip
        self.tower = transformers.CLIPVisionModelWithProjection(config)

    def forward(self, images: Tensor) -> Tensor:
        return self.tower(images).image_embeds


def bert() -> nn.Module:
    config = transformers.BertConfig(vocab_size=50, **WIDE)
    return transformers.BertForSequenceClassification(config)


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2, num_labels=3,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.GPT2ForSequenceClassification(config)


def llama() -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=50, pad_token_id=0, num_key_value_heads=1, **WIDE
    )  # fmt: skip
    return transformers.LlamaForSequenceClassification(config)


IMAGE_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], num_labels=3
        )
    ),
    "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**WIDE, **IMAGE)),
    "convnext": lambda: transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 2, 1], num_labels=3)
    ),
    "swin": lambda: transformers.SwinForImageClassification(
        transformers.SwinConfig(
            image_size=32, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 4],
            window_size=4, num_labels=3,
        )
    ),
    "swinv2": lambda: transformers.Swinv2ForImageClassification(
        transformers.Swinv2Config(
            image_size=32, patch_size=2, embed_dim=8, depths=[2], num_heads=[2],
            window_size=4, num_labels=3,
        )
    ),
    "beit": lambda: transformers.BeitForImageClassification(
        transformers.BeitConfig(**WIDE, **IMAGE, use_relative_position_bias=True)
    ),
    "clip": ImageTower,
}  # fmt: skip


def roberta() -> nn.Module:
    config = transformers.RobertaConfig(vocab_size=50, pad_token_id=0, **WIDE)
    return transformers.RobertaForSequenceClassification(config)


def distilbert() -> nn.Module:
    config = transformers.DistilBertConfig(
        vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=24, num_labels=3
    )
    return transformers.DistilBertForSequenceClassification(config)


TEXT_NETWORKS = {
    "bert": bert,
    "gpt2": gpt2,
    "llama": llama,
    "roberta": roberta,
    "distilbert": distilbert,
}


def randomized(model: nn.Module) -> nn.Module:
    """In float64 and eval mode, with no parameter at zero: zeros would hide missing gradients."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.double().eval()


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


def texts(lengths: list[int]) -> dict[str, Tensor]:
    """Random tokens, padded on the right to the longest, with an attention mask."""
    ids = torch.randint(3, 50, (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


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
