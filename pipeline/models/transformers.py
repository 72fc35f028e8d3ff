"""Backbones of the transformers library: a local folder, or built from a config without weights.

Nothing is downloaded and no code of a folder runs. The backbone is wrapped with a pooling and a
linear ``head``; where the folder holds a classifier for just that pooling, it is the head.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor

from pipeline.models.network import Network, as_network
from pipeline.models.options import ModelOptions, seeded
from pipeline.models.pooled import PooledImage, PooledText, Pooling
from pipeline.models.transformers_library import from_config, from_folder, library, quiet
from pipeline.models.weights import load_checkpoint, load_into, outputs_in, shown
from pipeline.types import InputError

TRAINED_POOLING: dict[str, Pooling] = {
    "resnet": "pooler",
    "convnext": "pooler",
    "convnextv2": "pooler",
    "swin": "pooler",
    "swinv2": "pooler",
    "vit": "cls",
    "deit": "cls",
    "clip_vision_model": "pooler",
    "siglip_vision_model": "pooler",
    "bert": "pooler",
    "gpt2": "last",
}
"""What the library's own classifiers of these model types are trained on."""

PREPARED_MASK = ("bert", "roberta", "distilbert", "gpt2")
"""Model types with plain full attention, which take an (n, 1, t, t) mask as it is."""

CLASSIFIERS = ("classifier", "classifier.1", "score")
"""Names of the linear classifiers in the library's checkpoints."""

NOT_THE_FUNCTION = (
    "_name_or_path",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "transformers_version",
)
"""Config entries that do not change what a backbone computes."""

LIBRARY_BYTES = 100 << 20
"""What a process holds of the library once it runs a small BERT (85 MiB measured)."""

DEFAULT_CLASSES = 2
IMAGENET_CLASSES = 1000


class TransformersOptions(ModelOptions):
    """A backbone of the transformers library."""

    kind: Literal["transformers"] = "transformers"
    """This family."""
    path: Path | None = None
    """Local folder with config.json and weights, as ``save_pretrained`` writes it."""
    config: str | None = None
    """Instead of a folder: model type or config class, such as vit or ViTConfig."""
    config_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of that config."""
    pooling: Literal["auto", "cls", "mean", "last", "pooler"] = "auto"
    """How positions become one vector; auto takes what the model type's classifiers use."""
    attention: Literal["eager", "sdpa"] = "eager"
    """sdpa is a few per cent faster and leaner, but has no forward-mode derivative on CPUs."""

    @model_validator(mode="after")
    def _has_one_source(self) -> "TransformersOptions":
        if (self.path is None) == (self.config is None):
            raise ValueError("give either path (a local folder) or config (a model type)")
        if self.config is None and self.config_kwargs:
            raise ValueError("config_kwargs belong to config; a folder brings its own")
        return self


def build(options: TransformersOptions) -> Network:
    """The backbone with pooling and head; a head that no file filled is random from the seed."""
    state = {} if options.weights is None else load_checkpoint(options.weights)
    with quiet(), seeded(options.seed):
        backbone, left_over = _backbone(options)
        pooling = resolved_pooling(backbone, options.pooling)
        drop_unused_pooler(backbone, pooling)
        classifier = trained_classifier(options.path, backbone, pooling, left_over)
        classes = DEFAULT_CLASSES if classifier is None else len(classifier[0])
        module = wrapped(backbone, pooling, outputs_in(state, "head.weight", classes))
    if classifier is not None and options.weights is None:
        weight, bias = classifier
        load_into(module.head, {"weight": weight, "bias": bias}, f"{options.path} (classifier)")
    if options.weights is not None:
        load_into(module, state, options.weights)
    supervised = _is_image_model(backbone) and _labels(backbone.config) >= IMAGENET_CLASSES
    seen = options.path is not None and supervised
    return as_network(
        module,
        "head",
        architecture=_architecture(options, backbone.config, pooling),
        notes=_notes(left_over, classifier is not None, seen),
        seen_target_labels=seen,
        untrained_head=options.path is not None and classifier is None and not state,
    )


def _backbone(options: TransformersOptions) -> tuple[Any, list[str]]:
    """The backbone, and the names in its files that it does not use."""
    if options.path is not None:
        return from_folder(options.path, options.attention)
    assert options.config is not None
    return from_config(options.config, options.config_kwargs, options.attention), []


def resolved_pooling(backbone: Any, asked: str) -> Pooling:
    """The pooling asked for, or what the model type's own classifiers use."""
    kind = backbone.config.model_type
    own: Pooling | None = TRAINED_POOLING.get(kind)
    pools = getattr(backbone, "pooler", None) is not None or (own == "pooler" and kind != "bert")
    if asked == "pooler" and not pools:
        raise InputError(
            f"this {type(backbone).__name__} has no trained pooler. Use cls or mean.",
            where="model.pooling",
        )
    if asked == "last" and _is_image_model(backbone):
        raise InputError(
            "pooling: last is the last real token of a text. Use cls, mean or pooler.",
            where="model.pooling",
        )
    if asked != "auto":
        return asked  # type: ignore[return-value]
    if own is not None and (own != "pooler" or pools):
        return own
    if _is_causal(kind):
        return "last"
    return "pooler" if pools else "cls"


def drop_unused_pooler(backbone: Any, pooling: Pooling) -> None:
    """Take out a pooler with weights that the pooling passes by: they would be dead parameters."""
    pooler = getattr(backbone, "pooler", None)
    if pooling != "pooler" and pooler is not None and any(True for _ in pooler.parameters()):
        backbone.pooler = None


def trained_classifier(
    path: Path | None, backbone: Any, pooling: Pooling, left_over: Collection[str]
) -> tuple[Tensor, Tensor] | None:
    """Weight (k, h) and bias (k,) of the folder's linear classifier on exactly this pooling."""
    named = [name for name in CLASSIFIERS if f"{name}.weight" in left_over]
    if path is None or not named or TRAINED_POOLING.get(backbone.config.model_type) != pooling:
        return None
    files = sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))
    state = {name: tensor for file in files for name, tensor in load_checkpoint(file).items()}
    weight = state[f"{named[0]}.weight"].float()
    if weight.ndim != 2 or weight.shape[1] != width(backbone.config):
        return None
    bias = state.get(f"{named[0]}.bias")
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.float()


def wrapped(backbone: Any, pooling: Pooling, classes: int) -> PooledImage | PooledText:
    """The backbone with its pooling and a head of that many logits."""
    config = backbone.config
    if _is_image_model(backbone):
        return PooledImage(backbone, pooling, width(config), classes)
    prepares = config.model_type in PREPARED_MASK
    causal = _is_causal(config.model_type)
    kind: Literal["additive", "boolean"] = (
        "boolean" if config._attn_implementation == "sdpa" else "additive"
    )
    return PooledText(
        backbone,
        pooling,
        width(config),
        classes,
        causal=causal,
        prepared_mask=kind if prepares else None,
        own_positions=causal and prepares,
    )


def width(config: Any) -> int:
    """h, the width of the backbone's last activations."""
    sizes = getattr(config, "hidden_sizes", None)
    return int(sizes[-1]) if sizes else int(config.hidden_size)


def _architecture(options: TransformersOptions, config: Any, pooling: Pooling) -> dict[str, Any]:
    settings = json.loads(config.to_json_string(use_diff=False))
    return {
        "kind": options.kind,
        "config": {k: v for k, v in sorted(settings.items()) if k not in NOT_THE_FUNCTION},
        "pooling": pooling,
        "attention": options.attention,
        # The library holds the forward pass: another version may compute other numbers.
        "transformers": library().__version__,
    }


def _notes(left_over: Collection[str], has_head: bool, seen: bool) -> tuple[str, ...]:
    notes = []
    unused = [n for n in left_over if not (has_head and n.startswith(CLASSIFIERS))]
    if unused:
        notes.append(f"{len(unused)} tensors of the checkpoint are not used: {shown(unused)}.")
    if seen:
        notes.append(
            "The backbone was trained with ImageNet's labels: on targets made of ImageNet classes "
            "it has seen the target labels."
        )
    return tuple(notes)


def _is_image_model(backbone: Any) -> bool:
    return bool(backbone.main_input_name == "pixel_values")


def _is_causal(model_type: str) -> bool:
    from transformers.models.auto import modeling_auto

    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return model_type in causal and model_type not in masked


def _labels(config: Any) -> int:
    return len(getattr(config, "id2label", None) or ())
