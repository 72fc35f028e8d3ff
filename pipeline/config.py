"""From a YAML file and ``--set`` overrides to a strict, frozen model; errors name the config path.

Each family declares its options beside its own code, as a subclass of :class:`Options`;
``registry`` assembles them into the schema of a run.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.types import InputError

ENVIRONMENT_VARIABLE = re.compile(r"\$\{(\w+)\}")
NO_SECRETS = (
    "a config is kept in the run's folder and must hold none. Libraries take credentials from the "
    "environment of the process by themselves."
)
SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?)(?:_|$)", re.IGNORECASE
)
SECRET_IN_ADDRESS = re.compile(
    # A password may hold slashes; digits before one are a port.
    r"\b[a-z][a-z0-9+.-]*://[^/\s@:]*:(?!\d+/)[^\s@]*@",
    re.IGNORECASE,
)
SECRET_VALUE = re.compile(
    r"\b(?:A[KS]IA[0-9A-Z]{16}|hf_\w{20,}|gh[pousr]_\w{20,}|sk-[\w-]{20,})\b|-----BEGIN [A-Z ]+KEY"
)
"""What keys of AWS, hubs and the like look like."""

ENVIRONMENT_HINTS = {
    "ENTK_DATA": (
        "It is the folder that holds the data sets and weights, laid out as the README's section "
        "'Data' says; set it with: export ENTK_DATA=/path/to/data"
    ),
}


Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What torch's and NumPy's generators both take."""

EXPECTED = {
    "model_attributes_type": "a mapping of keys, such as {{kind: …}}",
    "model_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
    "tuple_type": "a list, such as [a, b]",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text (quote a number: '1')",
    "path_type": "a path",
    "finite_number": "a finite number",
    "greater_than": "a number > {gt}",
    "greater_than_equal": "a number ≥ {ge}",
    "less_than": "a number < {lt}",
    "less_than_equal": "a number ≤ {le}",
    "too_short": "{min_length} value(s) or more",
}
"""What pydantic's types of error mean in a YAML file; their context is put in."""


class Options(BaseModel):
    """Base of every options model: unknown keys, infinity and NaN are refused, values cannot
    change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        # Python counts True as 1: `sketch.size=true` would keep a single parameter.
        for name, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field and not _takes_truth(field.annotation):
                raise ValueError(f"{name} cannot be {str(value).lower()}")
        return values


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
        *parents, last = path.split(".")
        if not separator or not all((*parents, last)):
            raise InputError(
                f"--set takes key=value, such as sketch.size=200000; got {override!r}."
            )
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
        if SECRET_VARIABLE.search(name):
            raise InputError(f"{name} looks like a secret; {NO_SECRETS}", where)
        if name not in os.environ:
            hint = ENVIRONMENT_HINTS.get(name, f"Set it with: export {name}=…")
            raise InputError(f"the environment variable {name} is not set. {hint}", where)
        return os.environ[name]

    expanded = ENVIRONMENT_VARIABLE.sub(lookup, values)
    if SECRET_IN_ADDRESS.search(expanded):
        raise InputError(f"an address holds a password; {NO_SECRETS}", where)
    if SECRET_VALUE.search(expanded):
        raise InputError(f"this looks like a key or a token; {NO_SECRETS}", where)
    return expanded


def validated(model: type[OptionsT], values: Any, source: str) -> OptionsT:
    """``values`` as a ``model``; every mistake is listed with its config path."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = dict.fromkeys(f"  {line}" for line in _explained(model, error))
        raise InputError("\n".join([f"{source} is not a valid config:", *lines])) from None


def _explained(model: type[BaseModel], error: ValidationError) -> list[str]:
    """One line a mistake; the alternatives of one value (``auto`` or a number) share a line."""
    expected: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    errors = error.errors()
    inside = {details["loc"][:i] for details in errors for i in range(len(details["loc"]))}
    for details in errors:
        # A list whose entries are refused counts as too short, too: the entries say it better.
        if details["type"] == "too_short" and details["loc"] in inside:
            continue
        path, message = _explain(model, details)
        expected.setdefault(path, []).append(message)
        # Of values that do not meet the message says which; a whole group would drown it.
        shown = details["type"] not in SAID and not isinstance(details["input"], Mapping)
        found[path] = f" (found {details['input']!r})." if shown else ""
    return [f"{path}{_alternatives(expected[path])}{found[path]}" for path in expected]


SAID = ("extra_forbidden", "union_tag_invalid", "union_tag_not_found", "missing")
"""Errors whose message holds what was found."""


def _alternatives(messages: Sequence[str]) -> str:
    """``a`` or ``b`` where both say what was expected."""
    distinct = list(dict.fromkeys(messages))
    return " or ".join([distinct[0], *(text.removeprefix("expected ") for text in distinct[1:])])


def _explain(model: type[BaseModel], details: Any) -> tuple[str, str]:
    """The config path of one mistake (with a colon), and what is wrong there."""
    location = _written_path(model, details["loc"])
    path = "".join(f"{part}." for part in location)
    here = f"{path.removesuffix('.')}: " if location else ""
    match details["type"]:
        case "extra_forbidden":
            members = _models_at(model, details["loc"][:-1])
            known = sorted({key for member in members for key in member.model_fields})
            close = difflib.get_close_matches(str(location[-1]), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            return here, f"unknown key.{hint} Known keys here: {', '.join(known)}."
        case "union_tag_invalid":
            context = details["ctx"]
            tags = f"expected one of {context['expected_tags']}, found {context['tag']!r}."
            return f"{path}kind: ", tags
        case "union_tag_not_found":
            tags = ", ".join(repr(_tag(member)) for member in _models_at(model, details["loc"]))
            return f"{path}kind: ", f"this key is required, one of {tags}."
        case "missing":
            return here, "this key is required."
        case known_type if known_type in EXPECTED:
            return here, f"expected {EXPECTED[known_type].format_map(details.get('ctx', {}))}"
    message = details["msg"].removeprefix("Value error, ")
    return here, re.sub("^(Input|String) should (be )?", "expected ", message)


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


def _models_at(model: Any, location: Sequence[Any]) -> list[type[BaseModel]]:
    """The option models that a location may hold."""
    for part in location:
        candidates = _members(model)
        fields = [c.model_fields[part] for c in candidates if part in c.model_fields]
        if fields:
            model = fields[0].annotation
        else:
            model = next((c for c in candidates if _tag(c) == part), model)
    return _members(model)


def _members(annotation: Any) -> list[type[BaseModel]]:
    """The option models inside an annotation: itself, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for inner in getattr(annotation, "__args__", ()) for member in _members(inner)]


def _takes_truth(annotation: Any) -> bool:
    """Whether a field's type, or one of a union's, is bool or anything."""
    inner = getattr(annotation, "__args__", ())
    return annotation in (bool, Any) or any(_takes_truth(argument) for argument in inner)


def _tag(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("kind")
    arguments = getattr(field.annotation, "__args__", (None,)) if field else (None,)
    return arguments[0]


def _copied(values: Any) -> Any:
    return {k: _copied(v) for k, v in values.items()} if isinstance(values, Mapping) else values
