"""Every key of a config as one Markdown page, from the schema that a run is checked against."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]

HEADINGS = ("key", "takes", "default", "what it is")

LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minItems": "at least {}",
}

ENDLESS = 2**60
"""Bounds from here on are those of a number's type and tell a reader nothing."""


def reference_page(schema: Schema) -> str:
    """Markdown for the JSON schema of a config: a table of its keys, then one for every mapping."""
    lines = ["# Every key of a config", ""]
    lines += [
        "Made by `python scripts/config_reference.py` from the schema that every config is checked "
        "against; do not edit. Keys without a default are required; unknown keys are refused.",
        "",
        *_table(schema, schema["$defs"]),
    ]
    for name, where in _sections(schema):
        section = schema["$defs"][name]
        kind = section["properties"].get("kind", {}).get("const")
        title = f"`{where}`" + (f", kind `{kind}`" if kind else "")
        lines += ["", f"## {title}", "", _sentence(section.get("description", "")), ""]
        lines += _table(section, schema["$defs"], ("kind",) if kind else ())
    return "\n".join(lines) + "\n"


def _sections(schema: Schema) -> Iterator[tuple[str, str]]:
    """(definition, path of the key that takes it), each once, in the order of the keys."""
    waiting = [(schema, "")]
    seen: set[str] = set()
    while waiting:
        section, path = waiting.pop(0)
        inner = []
        for key, field in section["properties"].items():
            where = f"{path}.{key}" if path else key
            for name in _references(field):
                if name not in seen:
                    seen.add(name)
                    inner.append((schema["$defs"][name], where))
                    yield name, where
        waiting += inner


def _references(field: Any) -> Iterator[str]:
    if isinstance(field, Mapping):
        if "$ref" in field:
            yield field["$ref"].rsplit("/", 1)[-1]
        for key, value in field.items():
            if key not in ("discriminator", "default"):
                yield from _references(value)
    elif isinstance(field, list):
        for value in field:
            yield from _references(value)


def _meaning(field: Schema, definitions: Schema) -> str:
    """The key's own description, or that of the one mapping it takes."""
    if "description" in field:
        return _sentence(field["description"])
    inner = list(_references(field))
    return _sentence(definitions[inner[0]].get("description", "")) if len(inner) == 1 else ""


def _table(section: Schema, definitions: Schema, left_out: Sequence[str] = ()) -> list[str]:
    required = section.get("required", ())
    rows = [
        (
            f"`{key}`",
            _takes(field),
            "" if key in required else _default(field, definitions),
            _meaning(field, definitions),
        )
        for key, field in section["properties"].items()
        if key not in left_out
    ]
    if not rows:
        return ["No keys of its own."]
    return [_line(HEADINGS), _line(["---"] * len(HEADINGS)), *map(_line, rows)]


def _takes(field: Schema) -> str:
    """What may stand there, in words."""
    if "discriminator" in field:
        return "kind: " + ", ".join(f"`{kind}`" for kind in field["discriminator"]["mapping"])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_takes(option) for option in field["anyOf"]))
    if "$ref" in field:
        return "mapping, below"
    bounds = [
        text.format(f"{field[key]:g}")
        for key, text in LIMITS.items()
        if key in field and field[key] < ENDLESS
    ]
    return ", ".join([_type(field), *bounds])


def _type(field: Schema) -> str:
    kind: str = field.get("type", "any value")
    if kind == "array":
        return f"list of {_takes(field['items'])}" if "items" in field else "list"
    if kind == "object":
        inner = field.get("additionalProperties")
        return f"names → {_takes(inner)}" if isinstance(inner, Mapping) else "mapping"
    names = {"integer": "whole number", "string": "text", "boolean": "true, false"}
    return names.get(kind, kind)


def _default(field: Schema, definitions: Schema) -> str:
    value = field.get("default", {})  # Pydantic writes none where a factory makes an empty mapping.
    inner = list(_references(field))
    if isinstance(value, Mapping) and len(inner) == 1:
        keys = definitions[inner[0]]["properties"]
        if value == {key: keys[key].get("default") for key in keys}:
            return "those below"
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _sentence(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
