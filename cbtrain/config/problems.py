"""Describe a fault in settings in one line: the key, the problem, what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cbtrain.errors import UserError, nearest
from cbtrain.settings import older_names, section_of

EXPECTED = "Input should be "
"""Start of pydantic's message on the kind of value it wants."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault in settings: the key (empty if sections do not fit together), the problem, and what to do."""

    key: str
    text: str
    hint: str | None = None


def first_problem(error: ValidationError, model: type[BaseModel]) -> Problem:
    """Return the first thing wrong, in terms of what is written in a config."""
    first = error.errors()[0]
    at = _known_part(first["loc"], model)
    key, got = ".".join(map(str, at)), first["input"]
    text = _text(first, [other for other in error.errors() if other["loc"][: len(at)] == tuple(at)], len(at))
    named = first["type"] == "value_error" and (repr(got) in text or text.endswith("?"))
    if first["type"] == "missing" and str(at[-1]) == "model":
        return Problem(key, text, "Name one, or take a preset, which brings one (`cbtrain providers list`).")
    if isinstance(got, dict) or named or key.endswith(("api_key_env", "base_url")):  # which may hold the key itself
        return Problem(key, text)
    return Problem(key, text, f"{_got(got)}{_meant(first)}")


def _text(first: ErrorDetails, same_key: Sequence[ErrorDetails], depth: int) -> str:
    """Return what is wrong with a value. If it may be of several kinds, pydantic has one error for each."""
    if first["type"] == "model_type":
        return "Input should be a section of keys and values"
    if first["type"] == "value_error":  # one of our own
        return str(first["ctx"]["error"])
    kinds = dict.fromkeys(error["msg"].partition(",")[0].removeprefix(EXPECTED) for error in same_key)
    if len(first["loc"]) > depth and len(kinds) > 1:
        return EXPECTED + " or ".join(kinds)
    return first["msg"]


def _known_part(loc: Sequence[str | int], model: type[BaseModel]) -> list[str | int]:
    """Return ``loc`` up to the last part that is written in a config: pydantic adds which kind of value it tried."""
    at: list[str | int] = []
    inner: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, str) and inner and part not in inner.model_fields:
            break
        if isinstance(part, str) and not inner:
            break
        at.append(part)
        if isinstance(part, str) and inner:
            inner = section_of(inner.model_fields[part].annotation)
    return at


def _got(value: Any) -> str:
    text = repr(value)
    return f"Got {text if len(text) <= 80 else text[:77] + '...'}."


def _meant(error: Mapping[str, Any]) -> str:
    """Return what was probably meant by a value of the wrong kind, or an empty text."""
    if error["type"] == "int_parsing" and re.fullmatch(r"\d+e\d", error["input"]):  # to YAML 1e6 is a text
        return f" Write it as {int(float(error['input']))}."
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        close = difflib.get_close_matches(str(error["input"]), choices, n=1, cutoff=0.6)
        return f" Did you mean {close[0]!r}?" if close else ""
    return ""


def refuse_unknown(settings: Mapping[str, Any], model: type[BaseModel], where: str) -> None:
    """Raise UserError on the first key of ``settings`` that ``model`` has not, with the one that was probably meant."""
    for section, at, key in _unknown(settings, model, ()):
        raise UserError(f"unknown key {'.'.join((*at, key))!r}", where=where, hint=known_key(key, section, model))


def _unknown(
    settings: Mapping[str, Any], section: type[BaseModel], at: tuple[str, ...]
) -> Iterator[tuple[type[BaseModel], tuple[str, ...], str]]:
    """Yield the keys of ``settings`` that ``section`` does not have, with the section and its path."""
    for key, value in settings.items():
        field = section.model_fields.get(key)
        if field is None:
            yield section, at, str(key)
            continue
        inner = section_of(field.annotation)
        entries = [(value, (*at, key))]
        if isinstance(value, list):
            entries = [(entry, (*at, key, str(index))) for index, entry in enumerate(value)]
        for entry, way in entries:
            if inner and isinstance(entry, dict):
                yield from _unknown(entry, inner, way)


def known_key(key: str, section: type[BaseModel], model: type[BaseModel]) -> str:
    """Return a hint: the key of this section that is all but the same (by its current name), else a key of that
    name elsewhere, else the nearest."""
    older = older_names(section)
    if close := difflib.get_close_matches(key, older, n=1, cutoff=0.8):
        return f"Did you mean {older[close[0]]!r}?"
    if not difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.8):
        same = [path for path in all_keys(model) if path.rpartition(".")[2] == key]
        # What each stage of training has is most likely meant for the therapist.
        same = [path for path in same if path.partition(".")[0] not in ("base", "patient")] or same
        if same:
            return f"Did you mean {' or '.join(map(repr, same[:3]))}?"
    return nearest(key, section.model_fields)


def all_keys(model: type[BaseModel], at: str = "") -> Iterator[str]:
    """Yield every key of ``model`` and its sections, with dots."""
    for key, field in model.model_fields.items():
        yield at + key
        inner = section_of(field.annotation)
        if inner and get_origin(field.annotation) is not list:
            yield from all_keys(inner, f"{at}{key}.")
