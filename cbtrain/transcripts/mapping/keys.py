"""Look values up in a record by a column's name or a dotted key, and in a file's path by a pattern."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

LONGEST_PATH = 4096
STEP = re.compile(r"\[(\d{1,6}|\*)\]|\.?([^.\[\]]{1,200})")


class Missing:
    """The type of :data:`MISSING`."""

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing()
"""What :func:`look_up` returns if there is no such key; None is a value."""


def look_up(record: Any, key: str) -> Any:
    """Return the value of ``key`` in ``record``: the key itself, or a path such as ``a.b``, ``a[0].b``, ``a[*].b`` (a
    list). Return :data:`MISSING` if it is not there."""
    # The test for dict is much faster than that for Mapping, and nearly all records are one.
    if (type(record) is dict or isinstance(record, Mapping)) and key in record:
        return record[key]
    steps = _steps(key)
    return _follow(record, steps) if len(steps) > 1 else MISSING


def first_key(key: str) -> str:
    """Return the key of the record in which the path ``key`` begins."""
    return next((str(step) for step in _steps(key)), key)


def _follow(value: Any, steps: tuple[int | str, ...]) -> Any:
    for index, step in enumerate(steps):
        if step == "*":
            if not isinstance(value, list):
                return MISSING
            values = [_follow(item, steps[index + 1 :]) for item in value]
            return [item for item in values if item is not MISSING]
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                return MISSING
        elif not isinstance(value, Mapping) or step not in value:
            return MISSING
        value = value[step]
    return value


@lru_cache(maxsize=256)
def _steps(key: str) -> tuple[int | str, ...]:
    steps: list[int | str] = []
    end = 0
    for match in STEP.finditer(key):
        if match.start() != end:
            return (key,)
        end = match.end()
        index, name = match.groups()
        steps.append(name if name is not None else "*" if index == "*" else int(index))
    return tuple(steps) if end == len(key) else (key,)


def in_path(pattern: str, path: str, name: str) -> str | None:
    """Return what the group ``name`` of ``pattern`` (or its only named group) matches in the POSIX path ``path``. None
    if the pattern does not match."""
    match = re.search(pattern, path[:LONGEST_PATH])
    if match is None:
        return None
    groups = match.groupdict()
    return groups[name] if name in groups else next(iter(groups.values()))
