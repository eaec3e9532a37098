"""The fields of config classes: which are sections, and which older names of a setting are still read.

A setting that was renamed keeps its older names in pydantic's ``validation_alias``, the name of the field first. They
are read everywhere: in files, in ``key=value``, in old run folders and checkpoints. Only the field's name is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel

from cbtrain.errors import UserError


def renamed(name: str, *older: str) -> AliasChoices:
    """Return the ``validation_alias`` of the field ``name``, which was called ``older`` before."""
    return AliasChoices(name, *older)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the config class of a field, also where it is optional or a list; None if it is no section."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def older_names(section: type[BaseModel]) -> dict[str, str]:
    """Return the older names of the settings of ``section``, each with the name of its field."""
    return {
        older: name
        for name, field in section.model_fields.items()
        if isinstance(field.validation_alias, AliasChoices)
        for older in field.validation_alias.choices
        if isinstance(older, str) and older != name
    }


def current_key(key: str, model: type[BaseModel]) -> str:
    """Return the dotted ``key`` with the current name of each part; what is not known stays as it is."""
    section: type[BaseModel] | None = model
    parts = []
    for part in key.split("."):
        if section and not part.isdecimal():  # the place of an entry in a list
            part = older_names(section).get(part, part)
            field = section.model_fields.get(part)
            section = section_of(field.annotation) if field else None
        parts.append(part)
    return ".".join(parts)


def with_current_names(
    settings: Mapping[str, Any], model: type[BaseModel], where: object, at: str = ""
) -> dict[str, Any]:
    """Return ``settings`` of ``model`` (its section ``at``) with the current name of each.

    Raises UserError, with ``where`` as its place, if a setting is given by two names with different values.
    """
    current: dict[str, Any] = {}
    written: dict[str, str] = {}
    names = older_names(model)
    for key, value in settings.items():
        name = names.get(key, key)
        field = model.model_fields.get(name)
        section = section_of(field.annotation) if field else None
        value = _inside(value, section, where, f"{at}{name}.") if section else value
        if name in current and current[name] != value:
            raise two_names(f"{at}{written[name]}", f"{at}{key}", f"{at}{name}", where)
        current[name], written[name] = value, key
    return current


def two_names(first: str, second: str, current: str, where: object) -> UserError:
    """Return the error for one setting that is given as ``first`` and as ``second``, with different values."""
    hint = f"They are one setting. Give it once, as {current}."
    return UserError(f"{first} and {second} have different values", where=where, hint=hint)


def _inside(value: Any, section: type[BaseModel], where: object, at: str) -> Any:
    """``value`` with current names, if it is a section or a list of them."""
    if isinstance(value, dict):
        return with_current_names(value, section, where, at)
    if isinstance(value, list):
        return [_inside(entry, section, where, f"{at}{index}.") for index, entry in enumerate(value)]
    return value
