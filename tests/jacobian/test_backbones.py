"""Every family of backbones that the pipeline builds, against single backward passes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jacobian_helpers import Indices, kept_share, relative_error
from reference import autograd_jacobian
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor, jacobian_features
from pipeline.models import cifar_resnet, lenet, resnet, small_cnn, squeezenet, transformers
from pipeline.models.head import with_head
from pipeline.sketch import make_sketch
from pipeline.types import Inputs

ENCODER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def of_config(config: str, kwargs: dict[str, Any]) -> nn.Module:
    pytest.importorskip("transformers")
    options = transformers.TransformersOptions(config=config, config_kwargs=kwargs)
    return transformers.build(options).module


def image_encoder(config: str) -> nn.Module:
    return of_config(config, ENCODER | {"image_size": 16, "patch_size": 8})


RELU: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (lambda: resnet.ResNet(18), (3, 33, 31)),
    "cifar_resnet, A": (lambda: cifar_resnet.CifarResNet(8, "A"), (3, 16, 16)),
    "cifar_resnet, B": (lambda: cifar_resnet.CifarResNet(8, "B"), (3, 15, 17)),
    "squeezenet": (lambda: squeezenet.SqueezeNet(), (3, 40, 37)),
    "small_cnn, relu": (lambda: small_cnn.SmallCNN(1, (4, 8), "relu"), (1, 9, 8)),
    "lenet": (lambda: lenet.LeNet(), (1, 32, 32)),
    "transformers resnet": (
        lambda: of_config(
            "ResNetConfig", {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1]}
        ),
        (3, 16, 16),
    ),
}
SMOOTH: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "small_cnn": (lambda: small_cnn.SmallCNN(3, (4, 6, 8)), (3, 9, 11)),
    "vit": (lambda: image_encoder("vit"), (3, 16, 16)),
    "convnext": (
        lambda: of_config(
            "convnext",
            {"hidden_sizes": [6, 10], "depths": [1, 1], "num_stages": 2, "patch_size": 2},
        ),
        (3, 16, 16),
    ),
    "swin": (
        lambda: of_config(
            "SwinConfig",
            {
                "image_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 8,
                "depths": [2, 1], "num_heads": [1, 2],
            },
        ),
        (3, 16, 16),
    ),
    "clip": (lambda: image_encoder("CLIPVisionConfig"), (3, 16, 16)),
}  # fmt: skip
IMAGES = RELU | SMOOTH
TEXTS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: of_config("bert", ENCODER | {"vocab_size": 50}),
    "gpt2": lambda: of_config(
        "gpt2",
        {
            "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50,
            "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0,
        },
    ),
}  # fmt: skip


def trained_looking(model: nn.Module) -> nn.Module:
    """In float64 and eval mode, nothing left at its initial zero or one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2.0)
    return model.double().eval()


def images_of(shape: tuple[int, ...], n: int = 3) -> Tensor:
    return torch.randn(n, *shape, dtype=torch.float64)


def texts(*lengths: int) -> dict[str, Tensor]:
    """Random tokens, padded on the right, with an attention mask."""
    ids = torch.randint(2, 50, (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


def affordable(model: nn.Module) -> Indices:
    """All parameters in random order, or 100,000 of a network with millions."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return kept_share(model, 1.0 if total < 2e6 else 1e5 / total)


def sample_errors(found: Tensor, wanted: Tensor) -> Tensor:
    """Relative error of every sample's features."""
    return (found.double() - wanted).norm(dim=1) / wanted.norm(dim=1)


@pytest.mark.parametrize("name", IMAGES)
def test_image_backbones_equal_autograd_in_batches_of_one_two_and_three(name: str) -> None:
    build, shape = IMAGES[name]
    model, images = trained_looking(build()), images_of(shape)
    sketch = affordable(model)
    wanted = autograd_jacobian(model, images)[:, sketch.indices]
    extract = FeatureExtractor(model, sketch)
    # Three first, then fewer than the plan was tried on.
    for n in (3, 1, 2):
        assert relative_error(extract(images[:n]).phi, wanted[:n]) <= 1e-10
    assert not extract.fallback


@pytest.mark.parametrize("name", IMAGES)
def test_uniform_features_are_a_gather_of_the_full_ones(name: str) -> None:
    build, shape = IMAGES[name]
    model, images = trained_looking(build()), images_of(shape, 1)
    full = jacobian_features(model, images)
    sketch = make_sketch("uniform", model, size=full.shape[1] // 150, seed=3)
    found = jacobian_features(model, images, sketch)
    assert relative_error(found, full[:, sketch.indices]) <= 1e-10


@pytest.mark.parametrize("name", TEXTS)
def test_text_backbones_equal_autograd_at_several_lengths(name: str) -> None:
    model = trained_looking(TEXTS[name]())
    extract = FeatureExtractor(model)
    for lengths in ((7, 4, 6), (5,), (3, 3), (1, 9, 2, 9, 5)):
        inputs = texts(*lengths)
        assert relative_error(extract(inputs).phi, autograd_jacobian(model, inputs)) <= 1e-10
    assert not extract.fallback


@pytest.mark.parametrize("name", TEXTS)
def test_texts_without_a_mask_equal_autograd(name: str) -> None:
    model = trained_looking(TEXTS[name]())
    inputs = {"input_ids": torch.randint(2, 50, (3, 5))}
    wanted = autograd_jacobian(model, inputs)
    assert relative_error(jacobian_features(model, inputs), wanted) <= 1e-10


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_backbones_are_exact_to_float32(name: str) -> None:
    build, shape = SMOOTH[name]
    model, images = trained_looking(build()), images_of(shape)
    wanted = autograd_jacobian(model, images)
    found = jacobian_features(model.float(), images.float())
    assert found.dtype == torch.float32
    assert float(sample_errors(found, wanted).max()) <= 1e-5


@pytest.mark.parametrize("name", TEXTS)
def test_smooth_text_backbones_are_exact_to_float32(name: str) -> None:
    model, inputs = trained_looking(TEXTS[name]()), texts(7, 4, 6)
    wanted = autograd_jacobian(model, inputs)
    found = jacobian_features(model.float(), inputs)
    assert float(sample_errors(found, wanted).max()) <= 1e-5


@pytest.mark.parametrize("name", RELU)
def test_most_samples_of_relu_backbones_are_exact_to_float32(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    build, shape = RELU[name]
    model, images = trained_looking(build()), images_of(shape, 5)
    sketch = affordable(model)
    wanted = autograd_jacobian(model, images)[:, sketch.indices]
    errors = sample_errors(jacobian_features(model.float(), images.float(), sketch), wanted)
    # Rounding flips a mask here and there: the largest error is reported, not bounded as tightly.
    record_property("largest_relative_error", float(errors.max()))
    assert float(errors.median()) <= 1e-5
    assert float(errors.max()) <= 0.1


def alone_and_together(model: nn.Module, together: Inputs, alone: list[Inputs]) -> float:
    extract = FeatureExtractor(model, affordable(model))
    beside = extract(together).phi
    return relative_error(beside, torch.cat([extract(one).phi for one in alone]))


@pytest.mark.parametrize("name", ["resnet18", "transformers resnet", "swin"])
def test_an_images_features_do_not_depend_on_its_neighbours(name: str) -> None:
    build, shape = IMAGES[name]
    images = images_of(shape)
    alone: list[Inputs] = [images[i : i + 1] for i in range(3)]
    assert alone_and_together(trained_looking(build()), images, alone) <= 1e-10


@pytest.mark.parametrize("name", TEXTS)
def test_a_texts_features_do_not_depend_on_how_far_it_is_padded(name: str) -> None:
    together = texts(7, 4, 6)
    lengths = together["attention_mask"].sum(1).tolist()
    alone: list[Inputs] = [
        {key: tensor[i : i + 1, :length] for key, tensor in together.items()}
        for i, length in enumerate(lengths)
    ]
    assert alone_and_together(trained_looking(TEXTS[name]()), together, alone) <= 1e-10


@pytest.mark.parametrize(
    ("name", "share"),
    [("resnet18", 0.01), ("cifar_resnet, A", 1.0), ("cifar_resnet, A", 0.05), ("convnext", 1.0)],
)
def test_channels_last_networks_give_the_same(name: str, share: float) -> None:
    build, shape = IMAGES[name]
    model, images = trained_looking(build()), images_of(shape)
    sketch = kept_share(model, share)
    wanted = jacobian_features(model, images, sketch)
    model = model.to(memory_format=torch.channels_last)
    found = jacobian_features(model, images.contiguous(memory_format=torch.channels_last), sketch)
    assert relative_error(found, wanted) <= 1e-10


def test_a_random_head_of_several_outputs_is_exact_for_all_of_them() -> None:
    options = cifar_resnet.CifarResNetOptions(depth=8)
    network = with_head(cifar_resnet.build(options), "random", outputs=3, seed=1)
    model, images = trained_looking(network.module), images_of((3, 12, 12))
    found = FeatureExtractor(model, output="all", capture=network.head)(images)
    assert found.captured is not None
    assert found.captured.shape == (3, model.get_submodule(network.head).in_features)
    assert relative_error(found.f0, model(images)) <= 1e-12
    for j in range(3):
        assert relative_error(found.phi[:, j], autograd_jacobian(model, images, j)) <= 1e-10
