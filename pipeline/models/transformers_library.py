"""The transformers library, asked politely: local files only, quietly, with errors explained."""

import contextlib
import difflib
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.models.weights import refuse_nonfinite, shown
from pipeline.types import InputError, MissingExtraError

IMAGE_TOWERS = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}


def from_config(name: str, kwargs: Mapping[str, Any], attention: str) -> Any:
    """A randomly initialized backbone of that model type or config class."""
    config = config_of(name, kwargs)
    config = getattr(config, "vision_config", config)
    with _explained(f"the {type(config).__name__} of the config"):
        return library().AutoModel.from_config(config, attn_implementation=attention)


def from_folder(path: Path, attention: str) -> tuple[Any, list[str]]:
    """The backbone in a local folder, and the names in its weights that it does not use.

    Raises :class:`InputError` when a weight of the backbone is missing; a missing pooler is taken
    out, as checkpoints of masked-token and classification training have none.
    """
    transformers = library()
    if not (path / "config.json").is_file():
        raise InputError(
            f"no transformers model at {path}: expected a folder with config.json and "
            "model.safetensors, as save_pretrained writes it.",
            where="model.path",
        )
    with _explained(str(path)):
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
        tower = IMAGE_TOWERS.get(config.model_type, "AutoModel")
        model, info = getattr(transformers, tower).from_pretrained(
            path,
            local_files_only=True,
            weights_only=True,
            dtype="float32",
            attn_implementation=attention,
            output_loading_info=True,
            # Refused below, by name; the library's own refusal only points at its log.
            ignore_mismatched_sizes=True,
        )
    _refuse_misfits(path, model, info)
    refuse_nonfinite(model.state_dict(), str(path), "model.path")
    return model, sorted(info["unexpected_keys"])


def _refuse_misfits(path: Path, model: Any, info: Mapping[str, Any]) -> None:
    missing = sorted(info["missing_keys"])
    if any(name.startswith("pooler.") for name in missing):
        model.pooler = None
        missing = [name for name in missing if not name.startswith("pooler.")]
    if missing:
        raise InputError(
            f"{path} lacks weights of its {type(model).__name__}: {shown(missing)}. "
            f"Unexpected in its files: {shown(sorted(info['unexpected_keys'])) or 'none'}.",
            where="model.path",
        )
    wrong = [
        f"{name} is {tuple(found)}, expected {tuple(expected)}"
        for name, found, expected in sorted(info["mismatched_keys"])
    ]
    if wrong:
        raise InputError(
            f"{path} does not fit its own config.json: {shown(wrong)}.", where="model.path"
        )


def config_of(name: str, kwargs: Mapping[str, Any]) -> Any:
    """The config; names that the library does not know are refused."""
    transformers = library()
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    classes = {key: value for key, value in CONFIG_MAPPING_NAMES.items() if isinstance(value, str)}
    class_name = classes.get(name, name)
    if class_name not in classes.values():
        close = difflib.get_close_matches(name, [*classes, *classes.values()], n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise InputError(
            f"transformers knows no config {name!r}.{hint} Give a model type such as vit, "
            "convnext, bert, or a class such as ViTConfig.",
            where="model.config",
        )
    config_class = getattr(transformers, class_name)
    _refuse_unknown_arguments(config_class, kwargs)
    with _explained(f"{class_name}({', '.join(kwargs)})", "model.config_kwargs"):
        return config_class(**kwargs)


def _refuse_unknown_arguments(config_class: Any, kwargs: Mapping[str, Any]) -> None:
    # The library keeps unknown arguments as attributes that nothing reads.
    known = {*config_class().to_dict(), *config_class.attribute_map}
    unknown = sorted(set(kwargs) - known)
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InputError(
            f"{config_class.__name__} has no argument {', '.join(unknown)}.{hint}",
            where="model.config_kwargs",
        )


def library() -> Any:
    """The transformers module, or a message that says what to install."""
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("transformers", "hf", "model.kind: transformers") from None
    return transformers


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the library's progress bars and load reports off the terminal meanwhile."""
    logging = library().utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _explained(what: str, where: str = "model") -> Iterator[None]:
    """The library's complaints about a folder or config as one message of ours."""
    from huggingface_hub.errors import StrictDataclassError

    expected = (OSError, ValueError, RuntimeError, TypeError, KeyError, ImportError)
    try:
        yield
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{what} is refused: its weights are no plain tensors, and loading them could run "
            "code. If you trust their origin, save the model anew with safetensors.",
            where=where,
        ) from error
    except (*expected, StrictDataclassError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        detail = " ".join(lines)[:600] or type(error).__name__
        raise InputError(f"transformers cannot load {what}: {detail}", where=where) from error
