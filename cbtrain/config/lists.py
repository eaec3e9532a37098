"""``a,b`` where a list is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from cbtrain.settings import section_of


def with_lists(values: Mapping[str, Any], section: type[BaseModel]) -> dict[str, Any]:
    """Return ``values`` with a list wherever one text (or number) stands in the place of a list: ``a,b`` is
    ``[a, b]``. Texts keep their commas."""
    listed = dict(values)
    for key, value in values.items():
        field = section.model_fields.get(key)
        inner = section_of(field.annotation) if field else None
        if inner and isinstance(value, dict):
            listed[key] = with_lists(value, inner)
        elif field and not inner:
            listed[key] = _list_of(value, field.annotation)
    return listed


def takes_list(annotation: Any) -> bool:
    """Return whether a field may hold a list of plain values."""
    return section_of(annotation) is None and any(get_origin(kind) is list for kind in _kinds(annotation))


def _list_of(value: Any, annotation: Any) -> Any:
    if not takes_list(annotation) or isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    # A share or a list of ids: one word alone is no list.
    otherwise = any(get_origin(kind) is not list and kind is not NoneType for kind in _kinds(annotation))
    if otherwise and not (isinstance(value, str) and "," in value):
        return value
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else [value]


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """Return what a field may be: the parts of ``A | B``, else the annotation itself."""
    return (annotation,) if get_origin(annotation) is list else get_args(annotation) or (annotation,)
