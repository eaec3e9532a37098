"""Shipped settings for APIs that many use: addresses, keys' names, and what each of them can and cannot do."""

from __future__ import annotations

import importlib.resources
from typing import Any

import yaml

from cbtrain.errors import UserError, nearest

FOLDER = "providers"


def presets() -> list[str]:
    """Their names, in order."""
    names = [file.name for file in (importlib.resources.files("cbtrain.configs") / FOLDER).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def preset(name: str) -> dict[str, Any]:
    """The settings called ``name``. Raises UserError, with the nearest name, where there are none."""
    if name not in presets():
        raise UserError(f"unknown preset {name!r}", where=name, fix=nearest(name, presets()))
    text = (importlib.resources.files("cbtrain.configs") / FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))
