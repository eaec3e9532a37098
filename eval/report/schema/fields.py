"""Types of fields that accept any value: a value of another kind becomes empty, so that no renderer has to check."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict

from cbtrain.eval.report.formatting import number


class Part(BaseModel):
    """A part of a report. Every field has a default. Keys that are not declared here are kept, so that an older program
    does not lose what a newer one has written."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)


PartT = TypeVar("PartT", bound=Part)


def plain(value: object) -> Any:
    """Return ``value`` as JSON can hold it: NaN and infinities become null, stray objects and half characters text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {words(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return words(value)


def words(value: object) -> str:
    """Return ``value`` as valid text; None is empty."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()


def _number(value: object) -> Any:
    return None if number(value) is None else value


def _whole(value: object) -> int | None:
    finite = number(value)
    return int(finite) if finite is not None and finite == int(finite) else None


def _texts(value: object) -> list[str]:
    return [words(item) for item in value] if isinstance(value, list | tuple) else []


def _indices(value: object) -> list[int]:
    return [item for item in value if type(item) is int] if isinstance(value, list | tuple) else []


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _lists(value: object) -> list[list[Any]]:
    return [list(item) for item in _list(value) if isinstance(item, list | tuple)]


def _table(value: object) -> dict[str, Any]:
    return {words(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def _part(value: object) -> Any:
    return value if isinstance(value, Mapping | Part) and value else None


def _parts(value: object) -> list[Any]:
    return [item for item in _list(value) if isinstance(item, Mapping | Part)]


def _tables_of_parts(value: object) -> dict[str, Any]:
    return {key: item for key, item in _table(value).items() if isinstance(item, Mapping | Part)}


Number = Annotated[int | float | None, BeforeValidator(_number)]
"""A finite number; text, booleans, NaN and infinities are None."""

Whole = Annotated[int | None, BeforeValidator(_whole)]
"""A whole number, or None."""

Text = Annotated[str, BeforeValidator(words)]
"""Valid text; null is empty."""

MaybeText = Annotated[str | None, BeforeValidator(lambda value: None if value is None else words(value))]
"""Valid text, or None where the file has null."""

Flag = Annotated[bool, BeforeValidator(bool)]

Texts = Annotated[list[str], BeforeValidator(_texts)]

MaybeTexts = Annotated[list[str] | None, BeforeValidator(lambda value: None if value is None else _texts(value))]
"""Texts, or None where the file has null: then it is not known whether there are any."""

Indices = Annotated[list[int], BeforeValidator(_indices)]
"""The whole numbers of a list."""

Numbers = Annotated[list[Number], BeforeValidator(_list)]

NumberTable = Annotated[dict[str, Number], BeforeValidator(_table)]

NumbersTable = Annotated[dict[str, Numbers], BeforeValidator(_table)]

TextTable = Annotated[dict[str, Text], BeforeValidator(_table)]

TextsTable = Annotated[dict[str, Texts], BeforeValidator(_table)]

IndicesTable = Annotated[dict[str, Indices], BeforeValidator(_table)]

Loose = Annotated[dict[str, Any], BeforeValidator(lambda value: plain(_table(value)))]
"""A table whose keys are not known here: it is shown as it is."""

LooseRows = Annotated[list[Loose], BeforeValidator(_parts)]
"""A list of such tables."""

Rows = Annotated[list[PartT], BeforeValidator(_parts)]
"""The tables of a list; other entries are left out."""

RowTable = Annotated[dict[str, PartT], BeforeValidator(_tables_of_parts)]

Whether = Annotated[PartT | None, BeforeValidator(_part)]
"""A part that may be missing: null, an empty table and any other kind of value are None."""

Always = Annotated[PartT, BeforeValidator(lambda value: _part(value) or {})]
"""A part that is empty where it is missing."""

Pairs = Annotated[list[Texts], BeforeValidator(_lists)]
"""Lists of names."""
