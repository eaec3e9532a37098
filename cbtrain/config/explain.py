"""Explain a setting in the terminal: type, default, description and allowed values."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cbtrain.config.overrides import COMMAND_LINE
from cbtrain.config.problems import known_key
from cbtrain.config.schema import StudyConfig
from cbtrain.config.sources import EXTENDS, EXTENDS_MEANING
from cbtrain.errors import UserError
from cbtrain.settings import current_key, section_of

WIDTH = 100
"""Columns of what is printed."""

SHORT = 60
"""Longest default in the list of a section."""

WORDS = {str: "text", Path: "path", bool: "true or false", int: "whole number", float: "number"}

BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def explain(key: str, model: type[BaseModel]) -> str:
    """Return what the setting ``key`` of ``model`` means, of a section what each of its settings does; of an empty key,
    the sections. Raises UserError, with the nearest key, if there is no such key."""
    key = current_key(key, model)
    if not key:
        return "\n".join([*_section("", model, model), "", *_extends()])
    if key == EXTENDS:
        return "\n".join(_extends())
    field = _field(key, model)
    inner = section_of(field.annotation)
    if inner:
        return "\n".join(_section(key, inner, model, field))
    return "\n".join(_setting(key, field, model))


def type_in_words(field: FieldInfo) -> str:
    """Return what a setting takes: ``whole number, at least 1``; ``auto, cue or llm``."""
    bounds = [
        f"{words} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, words in BOUNDS.items()
        if isinstance(getattr(limit, name, None), int | float)
    ]
    return ", ".join([_type(field.annotation), *bounds])


def _extends() -> Iterator[str]:
    """Yield the lines that explain ``extends``, a key of config files that is not a setting."""
    yield f"{EXTENDS}: text, in config files only; no default"
    yield from _indented(EXTENDS_MEANING)


def _field(key: str, model: type[BaseModel]) -> FieldInfo:
    section: type[BaseModel] | None = model
    parts = [part for part in key.split(".") if not part.isdecimal()]  # an entry of a list
    for depth, part in enumerate(parts, 1):
        if section is None or part not in section.model_fields:
            above = parts[: depth - 1]
            hint = known_key(part, above, section, model) if section else f"{'.'.join(above)!r} is not a section."
            raise UserError(f"unknown key {'.'.join(parts[:depth])!r}", where=COMMAND_LINE, hint=hint)
        field = section.model_fields[part]
        section = section_of(field.annotation)
    return field


def _section(
    key: str, section: type[BaseModel], model: type[BaseModel], field: FieldInfo | None = None
) -> Iterator[str]:
    """Yield the lines about a section: its purpose, and a block for each of its settings."""
    about = " ".join((section.__doc__ or "").replace("``", "").split())
    description = f" ({field.description})" if field and field.description else ""
    many = "a list of sections. " if field and get_origin(field.annotation) is list else ""
    yield from textwrap.wrap(f"{key}: {many}{about}{description}" if key else about, WIDTH)
    for name, inner in section.model_fields.items():
        path = f"{key}.{name}" if key else name
        yield ""
        nested = section_of(inner.annotation)
        if nested:
            yield from textwrap.wrap(f"{path}: a section, see `cbtrain config explain {path}`", WIDTH)
            text = inner.description or (nested.__doc__ or "").replace("``", "").partition("\n")[0]
        else:
            yield from textwrap.wrap(f"{path}: {type_in_words(inner)}; {_default(path, inner, model, SHORT)}", WIDTH)
            text = inner.description or ""
        yield from _indented(text)


def _setting(key: str, field: FieldInfo, model: type[BaseModel]) -> Iterator[str]:
    """Yield the lines about one setting, with its whole default."""
    yield from textwrap.wrap(f"{key}: {type_in_words(field)}", WIDTH)
    yield from _indented(_default(key, field, model))
    yield from _indented(field.description or "")


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")


def _type(annotation: Any) -> str:
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return _or([_yaml(part) for part in parts])
    if get_origin(annotation) is list:
        return f"list ([a, b] or a,b) of {_type(parts[0])}" if section_of(annotation) is None else "list of sections"
    if get_origin(annotation) is dict:
        return "section of any keys"
    if parts:  # A | B, or Optional[A]
        kinds = [part for part in parts if part is not NoneType]
        choices = [
            word
            for part in kinds
            for word in (map(_yaml, get_args(part)) if get_origin(part) is Literal else [_type(part)])
        ]
        return _or([*choices, *(["null"] if NoneType in parts else [])])
    return WORDS.get(annotation, "section")


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _default(key: str, field: FieldInfo, model: type[BaseModel], limit: int | None = None) -> str:
    """Return the default in words. A study that makes its own tiny model has some of its own."""
    if field.is_required():
        return "no default"
    values = [_at(key, settings) for settings in _defaults(model)]
    default = field.get_default(call_default_factory=True)
    large, tiny = (default if value is PydanticUndefined else value for value in values)
    text = f"default: {_yaml(large, limit)}"
    return text if large == tiny else f"{text} ({_yaml(tiny, limit)} where model.path is null)"


@cache
def _defaults(model: type[BaseModel]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the default settings of a study with a user's model, and of one with the tiny model."""
    if model is not StudyConfig:
        return {}, {}
    with_model = StudyConfig.model_validate({"model": {"path": "any"}}).model_dump(mode="json")
    return {**with_model, "model": {**with_model["model"], "path": None}}, StudyConfig().model_dump(mode="json")


def _at(key: str, settings: dict[str, Any]) -> Any:
    """Return the value at ``key``; undefined if the sections above it are not there."""
    value: Any = settings
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return PydanticUndefined
        value = value[part]
    return value


def _yaml(value: Any, limit: int | None = None) -> str:
    """Return ``value`` as it is written in a config, in one line."""
    value = str(value) if isinstance(value, Path) else value
    text = (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).removesuffix("...\n").strip()
    )
    return text if limit is None or len(text) <= limit else f"{text[: limit - 2]} …"
