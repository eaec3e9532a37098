"""What pydantic finds wrong with a value, in plain words."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

FAULTS = {
    "missing": "missing",
    "extra_forbidden": "unknown key",
    "invalid_key": "must be a text, as every key",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_type": "must be a text",
    "string_unicode": "must be a text in UTF-8",
    "string_too_short": "must have a length of at least {min_length}",
    "string_too_long": "must have a length of at most {max_length}",
    "string_pattern_mismatch": "must match the regular expression {pattern}",
    "path_type": "must be a path",
    "date_type": "must be a date: YYYY-MM-DD",
    "date_from_datetime_parsing": "must be a date: YYYY-MM-DD",
    "date_from_datetime_inexact": "must be a date without a time: YYYY-MM-DD",
    "list_type": "must be a list",
    "too_short": "must have a length of at least {min_length}",
    "dict_type": "must be a section of keys and values",
    "model_type": "must be a section of keys and values",
}
"""What is wrong with a value, by pydantic's type of error. The fields in braces are from the error's context."""


def fault_of(error: ErrorDetails) -> str:
    """Return what is wrong with a value, without its key: ``must be at least 1``."""
    context = error.get("ctx", {})
    if error["type"] == "value_error":  # raised by a validator of ours
        return str(context["error"])
    if error["type"] not in FAULTS:
        return error["msg"]
    shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}
    return FAULTS[error["type"]].format(**shown)


def first_fault(error: ValidationError) -> str:
    """Return the first thing that is wrong, after its dotted key: ``price.input: must be at least 0``."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    return f"{key}: {fault_of(first)}" if key else fault_of(first)
