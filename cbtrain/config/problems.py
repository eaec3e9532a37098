"""Describe a fault in settings in one line: the key, the problem, what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cbtrain.config.sources import EXTENDS
from cbtrain.errors import UserError, nearest
from cbtrain.settings import SettingsConflict, older_names, section_of
from cbtrain.text.faults import fault_of

ENVIRONMENT = "Give the NAME of an environment variable, and never the key itself."


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong: the key (empty if settings of several sections do not fit together), and a hint. ``causes``: the
    dotted keys of the settings that cause it."""

    key: str
    text: str
    causes: tuple[str, ...]
    hint: str | None = None


def first_problem(error: ValidationError, model: type[BaseModel]) -> Problem:
    """Return the first thing that is wrong, in terms of what is written in a config."""
    first = error.errors()[0]
    at, is_section = _known_part(first["loc"], model)
    # Of a value that may be of several kinds, pydantic has one error for each.
    same_key = [other for other in error.errors() if other["loc"][: len(at)] == tuple(at)]
    inner = max(same_key, key=lambda other: len(other["loc"]))
    if len(inner["loc"]) > len(at) + 1:  # a list, say, is the right kind, but not what is in it
        at, first, same_key = [*at, *inner["loc"][len(at) + 1 :]], inner, [inner]
    key, text, got = _dotted(at), _text(same_key), first["input"]
    if first["type"] == "missing" and str(at[-1]) == "model":
        return Problem(key, text, (key,), "Name one, or take a preset, which brings one (`cbtrain providers list`).")
    cause = first.get("ctx", {}).get("error")
    section = at if is_section else at[:-1]
    causes = [key]
    if isinstance(cause, SettingsConflict):
        causes = [_dotted([*section, name]) for name in cause.keys]
        if cause.at:
            key, text = _dotted([*section, cause.at]), cause.problem
    return Problem(key, text, tuple(causes), _hint(first, key, text, got))


def _dotted(parts: Sequence[str | int]) -> str:
    return ".".join(map(str, parts))


def _text(same_key: Sequence[ErrorDetails]) -> str:
    """Return what is wrong with a value, for all kinds that it may be of: ``must be a number or a list``."""
    first, *others = dict.fromkeys(fault_of(error) for error in same_key)
    return " or ".join([first, *(fault.removeprefix("must be ") for fault in others)])


def _hint(error: ErrorDetails, key: str, text: str, got: Any) -> str | None:
    """Return what was given, and what was probably meant; None where the text says it. A value that may be an API's key
    is not shown."""
    if key.endswith("api_key_env"):
        return ENVIRONMENT if error["type"] == "string_pattern_mismatch" else None
    named = error["type"] == "value_error" and (repr(got) in text or text.endswith("?"))
    if isinstance(got, dict) or named or key.endswith("base_url"):
        return None
    return f"{_got(got)}{_meant(error)}"


def _known_part(loc: Sequence[str | int], model: type[BaseModel]) -> tuple[list[str | int], bool]:
    """Return ``loc`` up to the last part that is written in a config (pydantic adds which kind of value it tried), and
    whether that is a section."""
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
    return at, inner is not None


def _got(value: Any) -> str:
    text = repr(value)
    return f"Got {text if len(text) <= 80 else text[:77] + '...'}."


def _meant(error: Mapping[str, Any]) -> str:
    """Return what was probably meant by a value of the wrong kind, or an empty text."""
    if error["type"] == "int_parsing" and re.fullmatch(r"\d+e\d", str(error["input"])):  # to YAML 1e6 is a text
        return f" Write it as {int(float(error['input']))}."
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        close = difflib.get_close_matches(str(error["input"]), choices, n=1, cutoff=0.6)
        return f" Did you mean {close[0]!r}?" if close else ""
    return ""


def refuse_unknown(settings: Mapping[str, Any], model: type[BaseModel], where: str) -> None:
    """Raise UserError on the first key of ``settings`` that ``model`` does not have, with the key that was probably
    meant."""
    for section, at, key in _unknown(settings, model, ()):
        raise UserError(f"unknown key {'.'.join((*at, key))!r}", where=where, hint=known_key(key, at, section, model))


def _unknown(
    settings: Mapping[str, Any], section: type[BaseModel], at: tuple[str, ...]
) -> Iterator[tuple[type[BaseModel], tuple[str, ...], str]]:
    """Yield the keys of ``settings`` that ``section`` does not have, each with its section and the path to that
    section."""
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


def known_key(key: str, at: Sequence[str], section: type[BaseModel], model: type[BaseModel]) -> str:
    """Return a hint with the whole dotted key that was probably meant by ``key`` in ``section``, which is at ``at`` in
    ``model``: one of this section that is all but the same (by its current name), else a key of that name elsewhere,
    else the nearest of this section."""
    if key == EXTENDS:
        return "It belongs at the top of a config file; on the command line, use --config."
    prefix = "".join(f"{part}." for part in at)
    older = older_names(section)
    if close := difflib.get_close_matches(key, older, n=1, cutoff=0.8):
        return f"Did you mean {prefix + older[close[0]]!r}?"
    if not difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.8):
        same = [path for path in all_keys(model) if path.rpartition(".")[2] == key]
        # What each stage of training has is most likely meant for the therapist.
        same = [path for path in same if path.partition(".")[0] not in ("base", "patient")] or same
        if same:
            return f"Did you mean {' or '.join(map(repr, same[:3]))}?"
    return nearest(key, section.model_fields, prefix)


def all_keys(model: type[BaseModel], at: str = "") -> Iterator[str]:
    """Yield every key of ``model`` and its sections, with dots."""
    for key, field in model.model_fields.items():
        yield at + key
        inner = section_of(field.annotation)
        if inner and get_origin(field.annotation) is not list:
            yield from all_keys(inner, f"{at}{key}.")
