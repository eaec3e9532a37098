"""The runs of a grid: every combination of its values, each with a name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import PurePath
from typing import Any

MOST_RUNS = 1000
"""Runs of one sweep: more is a mistake in a grid."""

NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._+-]+")


def runs_of_grid(grid: Mapping[str, Sequence[Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Return name and settings (dotted keys) of each combination of ``grid``, a list of values by key; the last key
    varies fastest. A name has each key's last part and value: ``rank-8_seed-1``."""
    labels = _labels(list(grid))
    runs = []
    for values in product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        parts = [_part(labels[key], value) for key, value in settings.items()]
        runs.append(("_".join(parts), settings))
    return runs


def _labels(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest end of each dotted key that no other one has."""
    labels = {}
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        labels[key] = next(
            end for end in ends if not any(f".{other}".endswith(f".{end}") for other in keys if other != key)
        )
    return labels


def _part(label: str, value: Any) -> str:
    text = NOT_IN_NAMES.sub("-", _text(value)).strip("-.") or "empty"
    return text if label == "speaker" else f"{label}-{text}"


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "+".join(map(_text, value))
    if isinstance(value, dict):
        return "+".join(f"{key}-{_text(inner)}" for key, inner in value.items())
    return PurePath(value).name if isinstance(value, str) and "/" in value else str(value)
