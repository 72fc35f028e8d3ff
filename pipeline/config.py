"""From a YAML file and ``--set`` overrides to a strict, frozen model; errors name the config path.

Each family declares its options beside its own code, as a subclass of :class:`Options`;
``registry`` assembles them into the schema of a run.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.types import InputError

ENVIRONMENT_VARIABLE = re.compile(r"\$\{(\w+)\}")

ENVIRONMENT_HINTS = {
    "ENTK_DATA": (
        "It is the folder that holds the data sets and weights, laid out as the README's section "
        "'Data' says; set it with: export ENTK_DATA=/path/to/data"
    ),
}


class Options(BaseModel):
    """Base of every options model: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


OptionsT = TypeVar("OptionsT", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML 1.2 file; duplicate keys and other types are refused."""
    if not path.is_file():
        raise InputError(f"no config file at {path}. The shipped ones are in configs/.")
    try:
        # YAML 1.2: 1e-6 is a number and `no` a string; duplicate keys are errors.
        loaded = YAML(typ="safe", pure=True).load(path)
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{path} must hold a mapping of keys, found {type(loaded).__name__}.")
    return loaded


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Write a mapping so that :func:`read_yaml` gives it back."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    with path.open("w") as file:
        yaml.dump(dict(values), file)


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The mapping with ``a.b=c`` overrides applied; values are parsed as YAML."""
    result = _copied(values)
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path:
            raise InputError(
                f"--set takes key=value, such as sketch.size=200000; got {override!r}."
            )
        *parents, last = path.split(".")
        node = result
        for depth, key in enumerate(parents):
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                parent = ".".join(parents[: depth + 1])
                raise InputError(f"--set {override}: {parent} is a value, not a group of keys.")
        try:
            node[last] = YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            raise InputError(f"--set {override}: the value is not valid YAML: {error}") from None
    return result


def expand_environment(values: Any, where: str = "") -> Any:
    """The same values with ``${NAME}`` replaced by environment variables, in every string."""
    if isinstance(values, Mapping):
        prefix = f"{where}." if where else ""
        return {key: expand_environment(v, f"{prefix}{key}") for key, v in values.items()}
    if isinstance(values, list):
        return [expand_environment(value, f"{where}.{i}") for i, value in enumerate(values)]
    if not isinstance(values, str):
        return values

    def lookup(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            hint = ENVIRONMENT_HINTS.get(name, f"Set it with: export {name}=…")
            raise InputError(f"the environment variable {name} is not set. {hint}", where)
        return os.environ[name]

    return ENVIRONMENT_VARIABLE.sub(lookup, values)


def validated(model: type[OptionsT], values: Any, source: str) -> OptionsT:
    """``values`` as a ``model``; every mistake is listed with its config path."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = dict.fromkeys(f"  {line}" for line in _explained(model, error))
        raise InputError("\n".join([f"{source} is not a valid config:", *lines])) from None


def _explained(model: type[BaseModel], error: ValidationError) -> list[str]:
    """One line a mistake; the alternatives of one value (``auto`` or a number) share a line."""
    lines: dict[str, list[str]] = {}
    for details in error.errors():
        path, message = _explain(model, details)
        lines.setdefault(path, []).append(message)
    return [f"{path}: {' or '.join(messages)}" for path, messages in lines.items()]


def _explain(model: type[BaseModel], details: Any) -> tuple[str, str]:
    """The config path of one mistake, and what is wrong there."""
    location = _written_path(model, details["loc"])
    path = ".".join(str(part) for part in location) or "(top level)"
    if details["type"] == "extra_forbidden":
        known = _known_keys(model, details["loc"][:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return path, f"unknown key.{hint} Known keys here: {', '.join(known)}."
    if details["type"] == "union_tag_invalid":
        context = details["ctx"]
        expected = f"expected one of {context['expected_tags']}, found {context['tag']!r}."
        return f"{path}.kind", expected
    if details["type"] == "missing":
        return path, "this key is required."
    message = details["msg"].removeprefix("Value error, ")
    # Of values that do not meet the message says which; a whole group would drown it.
    found = "" if isinstance(details["input"], Mapping) else f" (found {details['input']!r})"
    return path, f"{message}{found}."


def _written_path(model: Any, location: Sequence[Any]) -> list[Any]:
    """The location as the user wrote it.

    pydantic puts the tags of unions (`model.cifar_resnet.depth`) and the names of a value's
    alternatives (`executor.workers.constrained-int`) between the keys.
    """
    written: list[Any] = []
    for part in location:
        candidates = _members(model)
        fields = [c.model_fields[part] for c in candidates if part in c.model_fields]
        if fields:
            written.append(part)
            model = fields[0].annotation
        elif any(_tag(c) == part for c in candidates):
            model = next(c for c in candidates if _tag(c) == part)
        elif candidates or isinstance(part, int) or get_origin(model) is dict:
            written.append(part)
    return written


def _known_keys(model: Any, location: Sequence[Any]) -> list[str]:
    for part in location:
        candidates = _members(model)
        fields = [c.model_fields[part] for c in candidates if part in c.model_fields]
        if fields:
            model = fields[0].annotation
        else:
            model = next((c for c in candidates if _tag(c) == part), model)
    return sorted({key for member in _members(model) for key in member.model_fields})


def _members(annotation: Any) -> list[type[BaseModel]]:
    """The option models inside an annotation: itself, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for inner in getattr(annotation, "__args__", ()) for member in _members(inner)]


def _tag(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("kind")
    arguments = getattr(field.annotation, "__args__", (None,)) if field else (None,)
    return arguments[0]


def _copied(values: Any) -> Any:
    return {k: _copied(v) for k, v in values.items()} if isinstance(values, Mapping) else values
