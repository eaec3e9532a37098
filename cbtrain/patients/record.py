"""One record as a patient: every fault of it, in plain words, with the nearest known field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cbtrain.errors import UserError, nearest
from cbtrain.patients.case import CASE_SCHEMA, Case
from cbtrain.patients.faults import Faults
from cbtrain.settings import refuse_booleans
from cbtrain.text.faults import fault_of

SYMPTOM = "Add symptoms: [{name: low mood, severity: 2}], each with a severity from 0 (absent) to 3 (severe)."
FIX = "docs/patients.md has every field."
YES_NO = {True: "yes", False: "no"}


def case_of(
    record: Mapping[str, Any], where: str, faults: Faults, columns: Mapping[str, str] | None = None
) -> Case | None:
    """Return ``record`` as a patient, or None if it is none: then ``faults`` has everything that is wrong with it.

    ``columns`` has the column of a table that a field was read from, by the field.
    """
    content = {str(key): value for key, value in record.items()}
    schema = content.pop("schema", CASE_SCHEMA)
    if schema != CASE_SCHEMA:
        faults.add(UserError(f"schema: {schema!r} is not {CASE_SCHEMA}", where=where, hint=FIX))
        return None
    place = place_of(content, where)
    if isinstance(content.get("demographics"), dict):  # YAML reads `employed: no` as false
        facts = content["demographics"].items()
        content["demographics"] = {key: YES_NO[v] if isinstance(v, bool) else v for key, v in facts}
    before = len(faults.found)
    with faults.collected():
        refuse_booleans(content, Case, place)
    try:
        case = Case.model_validate(content)
    except ValidationError as error:
        found = {_place(fault): fault for fault in reversed(error.errors())}  # of a union, one fault for each kind
        for loc in reversed(found):
            faults.add(_fault(found[loc], loc, place, columns or {}))
        return None
    return case if len(faults.found) == before else None


def place_of(content: Mapping[str, Any], where: str) -> str:
    """Return ``where`` with the patient's id, if there is one and the file is not called by it."""
    key = content.get("id")
    return f"{where} ({key})" if isinstance(key, str) and key and Path(where).stem != key else where


def _place(fault: ErrorDetails) -> tuple[str | int, ...]:
    """The keys on the way to a fault, without what pydantic adds: the kinds of a union, and that it is about a key."""
    loc = fault["loc"]
    if loc[:1] == ("demographics",) and len(loc) == 3:
        return loc[:2]
    return loc[:-1] if loc[-1:] == ("[key]",) else loc


def _fault(fault: ErrorDetails, loc: tuple[str | int, ...], where: str, columns: Mapping[str, str]) -> UserError:
    key = ".".join(map(str, loc))
    if loc == ("symptoms",) and fault["type"] in ("missing", "too_short"):
        return UserError("a patient without a symptom", where=where, hint=SYMPTOM)
    what, hint = fault_of(fault), FIX
    if fault["type"] == "missing":
        what = "missing"
    elif fault["type"] == "extra_forbidden":
        what, hint = "unknown field", nearest(str(loc[-1]), _fields_at(loc[:-1]))
    elif loc[:1] == ("demographics",) and len(loc) == 2:
        what = "must be a text or a whole number"
    elif loc[:1] == ("phases",) and len(loc) == 2 and fault["type"] == "literal_error":
        what = f"must be {fault.get('ctx', {}).get('expected')}"
    elif fault["type"] in ("literal_error", "string_type"):
        hint = f"Got {fault['input']!r}." if fault["input"] is not None else FIX
    column = columns.get(str(loc[0])) if loc else None
    if column is not None and column != key:
        key = f"{key} (column {column!r})"
    return UserError(f"{key}: {what}" if key else what, where=where, hint=hint)


def _fields_at(loc: Sequence[str | int]) -> list[str]:
    """Return the fields that are known at ``loc``, through lists and sections by name."""
    annotation: Any = Case
    for part in loc:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = annotation.model_fields[str(part)].annotation
        elif get_origin(annotation) in (list, dict):
            annotation = get_args(annotation)[-1]
    return sorted(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
