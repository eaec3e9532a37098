"""A JSON schema of config files, for editors that complete and check YAML by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from cbtrain.config.sources import EXTENDS, EXTENDS_MEANING, SYNTHESIS, shipped_configs
from cbtrain.providers.overrides import presets
from cbtrain.settings import older_names, section_of

DRAFT = "https://json-schema.org/draft/2020-12/schema"

GROUPED = {"type": "string", "pattern": "^[0-9]{1,3}(_[0-9]{3})+$"}
"""``50_000_000``: YAML 1.2, which editors read, knows no underscores in numbers; cbtrain does."""


def editor_schema(model: type[BaseModel], kind: str) -> dict[str, Any]:
    """Return the JSON schema of a file of this kind (``study``, ``synthesis`` or ``provider``), as a person writes it:
    any part may be left out, ``extends`` may stand in it, a list may be ``a,b``, and an API the name of a preset."""
    schema = model.model_json_schema()
    whole = _entries(schema)  # entries of a list are not merged with those of a lower layer
    for name, definition in {"": schema, **schema.get("$defs", {})}.items():
        if name not in whole:
            definition.pop("required", None)
        definition["properties"] = {key: _as_written(value) for key, value in definition["properties"].items()}
    for section in _sections(model):
        properties = (schema if section is model else schema["$defs"][section.__name__])["properties"]
        for older, name in older_names(section).items():
            properties[older] = {**properties[name], "description": f"older name of {name}", "deprecated": True}
    names = shipped_configs() if kind == "study" else shipped_configs(SYNTHESIS) if kind == "synthesis" else presets()
    extends = {
        "description": EXTENDS_MEANING,
        "anyOf": [{"enum": names}, {"type": "string", "minLength": 1}],
    }
    schema["properties"] = {EXTENDS: extends, **schema["properties"]}
    return {"$schema": DRAFT, **schema, "title": f"cbtrain {kind}"}


def _sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Return ``model`` and the sections in it."""
    if issubclass(model, BaseModel):  # what holds sections by name is none itself
        yield model
    for field in model.model_fields.values():
        if section := section_of(field.annotation):
            yield from _sections(section)


def _as_written(setting: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one setting, with the other ways in which it may be written."""
    about: dict[str, Any] = {key: setting[key] for key in ("default", "description") if key in setting}
    shape = {key: value for key, value in setting.items() if key not in (*about, "title")}
    ways = [way for kind in shape.get("anyOf", [shape]) for way in _ways(kind)]
    return {**(ways[0] if len(ways) == 1 else {"anyOf": ways}), **about}


def _ways(kind: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield kind
    if kind.get("$ref") == "#/$defs/ProviderConfig":
        yield {"enum": presets()}
    elif kind.get("type") == "array" and "$ref" not in kind["items"]:
        yield {"type": "string"}
    elif kind.get("type") == "integer":
        yield GROUPED


def _entries(schema: Any) -> set[str]:
    """Return the names of sections that are entries of lists."""
    if isinstance(schema, list):
        return set().union(*map(_entries, schema))
    if not isinstance(schema, dict):
        return set()
    items = schema.get("items")
    names = {items["$ref"].rpartition("/")[2]} if isinstance(items, dict) and "$ref" in items else set()
    return names.union(*map(_entries, schema.values()))
