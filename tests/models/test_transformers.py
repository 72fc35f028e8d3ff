import sys

import pytest
import torch
from torch.func import functional_call, grad, vmap

from pipeline.models import transformers as family
from pipeline.models.network import check_forward, copied
from pipeline.models.transformers import TransformersOptions
from pipeline.types import InputError, MissingExtraError

library = pytest.importorskip("transformers")

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY_TEXT = TINY | {"intermediate_size": 32, "vocab_size": 50}
TINY_IMAGE = TINY | {"intermediate_size": 32, "image_size": 16, "patch_size": 8}
SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "patch_size": 2}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50}
GPT2_TOKENS = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}

IMAGES = {
    "ResNetConfig": {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1]},
    "vit": TINY_IMAGE,
    "convnext": {"hidden_sizes": [6, 10], "depths": [1, 1], "num_stages": 2, "patch_size": 2},
    "SwinConfig": SWIN | {"image_size": 16},
    "clip": {"vision_config": TINY_IMAGE},
    "CLIPVisionConfig": TINY_IMAGE,
}
TEXTS = {
    "bert": TINY_TEXT,
    "roberta": TINY_TEXT | {"pad_token_id": 0},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 50},
    "gpt2": GPT2 | GPT2_TOKENS,
}


def network(config, kwargs, **options):
    return family.build(TransformersOptions(config=config, config_kwargs=kwargs, **options))


def tokens():
    """Three texts of 7, 4 and 6 tokens, padded right; token 0 is the padding."""
    ids = torch.randint(2, 50, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] * 6 + [0]])
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.mark.parametrize("config", IMAGES)
def test_image_models_give_logits_through_a_linear_head(config):
    built = network(config, IMAGES[config])
    images = torch.randn(3, 3, 16, 16)
    check_forward(built, images)
    assert built.module(images).shape == (3, 2)
    assert built.module(pixel_values=images).shape == (3, 2)


@pytest.mark.parametrize("config", TEXTS)
@pytest.mark.parametrize("pooling", ["auto", "cls", "mean", "last"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_text_models_give_logits_that_no_neighbour_changes(config, pooling, attention):
    module = network(config, TEXTS[config], pooling=pooling, attention=attention).module.double()
    batch = tokens()
    together = module(**batch)
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        alone = module(input_ids=batch["input_ids"][row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-10, atol=1e-12)


def test_the_side_of_the_padding_makes_no_difference_to_gpt2():
    module = network("gpt2", TEXTS["gpt2"]).module.double()
    batch = tokens()
    lengths = batch["attention_mask"].sum(1).tolist()
    left = {name: torch.zeros_like(tensor) for name, tensor in batch.items()}
    for row, length in enumerate(lengths):
        for name in left:
            left[name][row, 7 - length :] = batch[name][row, :length]
    torch.testing.assert_close(module(**left), module(**batch), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("config", TEXTS)
def test_the_prepared_mask_gives_what_the_librarys_own_gives(config):
    module = network(config, TEXTS[config], pooling="mean").module.double()
    batch = tokens()
    hidden = module.backbone(**batch).last_hidden_state
    weights = batch["attention_mask"][..., None]
    expected = module.head((hidden * weights).sum(1) / weights.sum(1))
    torch.testing.assert_close(module(**batch), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("config", TEXTS)
def test_per_sample_gradients_by_vmap_follow_the_text_models(config):
    module = network(config, TEXTS[config]).module.double()
    params = {name: p.detach() for name, p in module.named_parameters()}
    batch = tokens()

    def logit(params, sample):
        one = {name: tensor[None] for name, tensor in sample.items()}
        return functional_call(module, params, kwargs=one)[0, 0]

    gradients = vmap(grad(logit), in_dims=(None, 0))(params, batch)
    module(**{name: tensor[1:2] for name, tensor in batch.items()})[0, 0].backward()
    for name, parameter in module.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradients[name][1], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("config", [*IMAGES, *TEXTS])
def test_every_parameter_acts_on_some_logit(config):
    kwargs = IMAGES.get(config) or TEXTS[config]
    module = network(config, kwargs).module
    batch = {"pixel_values": torch.randn(3, 3, 16, 16)} if config in IMAGES else tokens()
    module(**batch).sum().backward()
    dead = [name for name, p in module.named_parameters() if p.grad is None]
    assert dead == []


def test_building_is_a_function_of_the_seed_and_leaves_global_randomness_alone():
    before = torch.random.get_rng_state()
    digests = [network("vit", TINY_IMAGE, seed=seed).state_digest() for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert digests[0] == digests[1] != digests[2]


def folder(tmp_path, model):
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def classifier(name, config, labels):
    torch.manual_seed(0)
    model = getattr(library, name)(config(num_labels=labels)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def configs():
    return {
        "ViTForImageClassification": lambda **k: library.ViTConfig(**TINY_IMAGE, **k),
        "ResNetForImageClassification": lambda **k: library.ResNetConfig(
            **IMAGES["ResNetConfig"], **k
        ),
        "ConvNextForImageClassification": lambda **k: library.ConvNextConfig(
            **IMAGES["convnext"], **k
        ),
        "SwinForImageClassification": lambda **k: library.SwinConfig(**IMAGES["SwinConfig"], **k),
        "BertForSequenceClassification": lambda **k: library.BertConfig(**TINY_TEXT, **k),
        "GPT2ForSequenceClassification": lambda **k: library.GPT2Config(**TEXTS["gpt2"], **k),
    }


@pytest.mark.parametrize("name", configs())
def test_a_classifier_in_a_folder_becomes_the_head(tmp_path, name):
    theirs = classifier(name, configs()[name], labels=5)
    ours = family.build(TransformersOptions(path=folder(tmp_path, theirs)))
    batch = {"pixel_values": torch.randn(3, 3, 16, 16)} if "Image" in name else tokens()
    assert not ours.untrained_head
    assert ours.outputs == 5
    torch.testing.assert_close(ours.module(**batch), theirs(**batch).logits, rtol=1e-5, atol=1e-5)


def test_an_imagenet_classifier_has_seen_the_target_labels(tmp_path):
    theirs = classifier(
        "ViTForImageClassification", lambda **k: library.ViTConfig(**TINY_IMAGE, **k), labels=1000
    )
    options = TransformersOptions(path=folder(tmp_path, theirs))
    assert family.build(options).seen_target_labels
    assert any("seen the target labels" in note for note in family.build(options).notes)


def test_a_folder_without_classifier_has_no_head_to_keep(tmp_path):
    theirs = library.BertForMaskedLM(library.BertConfig(**TINY_TEXT))
    network = family.build(TransformersOptions(path=folder(tmp_path, theirs)))
    assert network.untrained_head
    assert network.module.pooling == "cls"
    assert "not used: cls.predictions" in network.notes[0]


def test_the_image_tower_of_a_clip_folder_is_loaded_alone(tmp_path):
    texts = TINY_TEXT | {"eos_token_id": 1}
    config = library.CLIPConfig(vision_config=TINY_IMAGE, text_config=texts, projection_dim=8)
    theirs = library.CLIPModel(config).eval()
    network = family.build(TransformersOptions(path=folder(tmp_path, theirs)))
    images = torch.randn(2, 3, 16, 16)
    expected = theirs.vision_model(pixel_values=images).pooler_output
    torch.testing.assert_close(
        network.module(images), network.module.head(expected), rtol=1e-5, atol=1e-6
    )


def test_half_precision_folders_become_float32(tmp_path):
    theirs = library.ViTModel(library.ViTConfig(**TINY_IMAGE)).to(torch.bfloat16)
    network = family.build(TransformersOptions(path=folder(tmp_path, theirs)))
    assert {p.dtype for p in network.module.parameters()} == {torch.float32}


def test_own_weights_fill_backbone_and_head(tmp_path):
    first = network("vit", TINY_IMAGE, seed=3)
    module = copied(first).module
    module.head = torch.nn.Linear(16, 7)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    second = network("vit", TINY_IMAGE, weights=tmp_path / "w.pt")
    assert second.outputs == 7
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(second.module(images), module(images))


def test_the_provenance_tells_configs_apart_and_holds_no_path(tmp_path):
    path = folder(tmp_path, library.ViTModel(library.ViTConfig(**TINY_IMAGE)))
    from_folder = family.build(TransformersOptions(path=path)).architecture
    from_config = network("vit", TINY_IMAGE).architecture
    assert from_folder == from_config
    other = network("vit", TINY_IMAGE | {"layer_norm_eps": 1e-5}).architecture
    assert other != from_config
    assert network("vit", TINY_IMAGE, pooling="mean").architecture != from_config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": "vitt"}, r"model\.config: .*no config 'vitt'.* Did you mean vit"),
        (
            {"config": "vit", "config_kwargs": {"hiden_size": 3}},
            r"model\.config_kwargs: ViTConfig has no argument hiden_size\. Did you mean 'hidden_s",
        ),
        (
            {"config": "vit", "config_kwargs": {"hidden_size": "x"}},
            r"model\.config_kwargs: transformers cannot load ViTConfig\(hidden_size\)",
        ),
        ({"config": "convnext", "attention": "sdpa"}, "does not support"),
        ({"config": "vit", "config_kwargs": TINY_IMAGE, "pooling": "last"}, "last real token"),
        (
            {"config": "distilbert", "config_kwargs": TEXTS["distilbert"], "pooling": "pooler"},
            r"model\.pooling: .*no trained pooler",
        ),
        ({"path": "absent_folder"}, r"model\.path: no transformers model at absent_folder"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(InputError, match=message):
        family.build(TransformersOptions(**options))


@pytest.mark.parametrize(
    "options", [{}, {"path": "a", "config": "vit"}, {"path": "a", "config_kwargs": {"b": 1}}]
)
def test_exactly_one_source_is_asked_for(options):
    with pytest.raises(ValueError, match=r"path|config_kwargs"):
        TransformersOptions(**options)


def damaged(tmp_path, change):
    from safetensors.torch import load_file, save_file

    path = folder(tmp_path, library.ViTModel(library.ViTConfig(**TINY_IMAGE)))
    state = load_file(path / "model.safetensors")
    change(state)
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    return path


def weight_of(state):
    return next(name for name in state if name.endswith("mlp.fc1.weight") or "intermediate" in name)


def test_a_folder_that_lacks_weights_is_refused_by_name(tmp_path):
    path = damaged(tmp_path, lambda state: state.pop(weight_of(state)))
    with pytest.raises(InputError, match=r"model\.path: .* lacks weights of its ViTModel"):
        family.build(TransformersOptions(path=path))


def test_a_folder_with_wrong_shapes_or_nan_is_refused_by_name(tmp_path):
    def cut(state):
        state[weight_of(state)] = torch.ones(3, 3)

    def poison(state):
        state[weight_of(state)][0] = torch.nan

    with pytest.raises(InputError, match=r"layer.* is \(3, 3\), expected"):
        family.build(TransformersOptions(path=damaged(tmp_path / "a", cut)))
    with pytest.raises(InputError, match=r"NaN or infinite weights in .*layer"):
        family.build(TransformersOptions(path=damaged(tmp_path / "b", poison)))


def test_a_folder_whose_pickle_holds_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    class Bomb:
        def __reduce__(self):
            return (eval, ("open('exploded', 'w')",))

    monkeypatch.chdir(tmp_path)
    path = folder(tmp_path, library.ViTModel(library.ViTConfig(**TINY_IMAGE)))
    (path / "model.safetensors").unlink()
    torch.save({"bomb": Bomb()}, path / "pytorch_model.bin")
    with pytest.raises(InputError, match="could run code"):
        family.build(TransformersOptions(path=path))
    assert not (tmp_path / "exploded").exists()


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"entk-pipeline\[hf\]"):
        network("vit", {})
