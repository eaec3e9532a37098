"""``key=value`` on the command line, over the settings of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cbtrain.errors import UserError
from cbtrain.providers.overrides import FOREIGN, merge
from cbtrain.settings import parse_yaml, section_of

COMMAND_LINE = "command line"
"""The place that errors name for settings on the command line."""

FIRST = ("provider", "patient_provider", "preset", "kind", "base_url", "model")
"""Keys that choose the API, in the order in which they are applied: each of them removes settings of lower layers."""


def rank(override: str) -> int:
    """Return the rank of a ``key=value`` among others: keys that choose the API are applied first."""
    key = override.partition("=")[0].rpartition(".")[2]
    return FIRST.index(key) if key in FIRST else len(FIRST)


def apply_override(
    settings: dict[str, Any], override: str, model: type[BaseModel], origins: Mapping[str, str] | None = None
) -> None:
    """Lay one ``key=value`` over ``settings``. Raises UserError if it is not a setting, or if there is a value instead
    of a section: ``origins`` says which file has it."""
    key, equals, _ = override.partition("=")
    if not equals or not key:
        hint = "E.g. therapist.learning_rate=1e-4."
        raise UserError(f"{override!r} is not key=value", where=COMMAND_LINE, hint=hint)
    at, parts = settings, key.split(".")
    for depth, part in enumerate(parts[:-1], 1):
        inner = at.get(part)
        if inner is None:
            inner = at[part] = {}
        if isinstance(inner, str) and part.endswith("provider"):
            inner = at[part] = {"preset": inner}
        if not isinstance(inner, dict):
            where = (origins or {}).get(".".join(parts[:depth]), COMMAND_LINE)
            hint = "See `cbtrain config explain`."
            raise UserError(f"{part!r} in {key!r} is not a section", where=where, hint=hint)
        at = inner
    new = {parts[-1]: value_of(override, model)}
    whole = merge(at, new, FOREIGN not in parts[:-1]) | new
    at.clear()
    at.update(whole)


def value_of(override: str, model: type[BaseModel]) -> Any:
    """Return the value in ``key=value`` parsed as YAML, but unchanged if the setting is a text: paths may hold
    anything. Raises UserError on a malformed section or list, and on one in which a key comes twice."""
    key, _, text = override.partition("=")
    annotation = _annotation(model, key.split("."))
    wants_text = annotation is str or set(getattr(annotation, "__args__", ())) == {str, type(None)}
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if wants_text and not quoted and (annotation is str or text not in ("null", "~")):
        return text
    try:
        return parse_yaml(lambda: text, COMMAND_LINE)
    except UserError as error:
        composed = text.lstrip()[:1] in ("{", "[") or "\n" in text
        if composed and not {str, Path} & {annotation, *getattr(annotation, "__args__", ())}:
            raise UserError(f"{key}: {error.what}", where=COMMAND_LINE, hint=error.hint) from None
        return text  # such as the 45th of a month


def _annotation(model: type[BaseModel], parts: Sequence[str]) -> Any:
    """Return the type of the field at ``parts``, None if there is no such field."""
    field = model.model_fields.get(parts[0])
    if field is None or len(parts) == 1:
        return field.annotation if field else None
    inner = section_of(field.annotation)
    return _annotation(inner, parts[1:]) if inner else None
