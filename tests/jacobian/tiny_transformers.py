"""Networks of transformers, tiny and random, that this room's tests share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

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


def texts(lengths: list[int]) -> dict[str, Tensor]:
    """Random tokens, padded on the right to the longest, with an attention mask."""
    ids = torch.randint(3, 50, (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"input_ids": ids * mask, "attention_mask": mask.long()}
