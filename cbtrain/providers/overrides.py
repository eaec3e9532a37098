"""How settings of an API lie over others, shipped presets at the bottom: a key must not get to another company than its
own."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import yaml

from cbtrain.errors import UserError, nearest
from cbtrain.files import shipped
from cbtrain.settings import SettingsConflict

FOLDER = "providers"
"""Of the shipped presets."""

BASES = {
    "anthropic": "https://api.anthropic.com/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta",
}
"""Addresses of the kinds that have one; those that speak the OpenAI protocol are many."""

KEYS = {"anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}

UNSAID = "?"
"""Stands for the name of a key that is not known, because its settings were moved to another host."""

FOREIGN = "extra_body"
"""The section whose keys are an API's own, whatever they are called."""


def merge(below: Mapping[str, Any], given: Mapping[str, Any], ours: bool = True) -> dict[str, Any]:
    """Return ``given`` over ``below``, key by key and section by section. An API that is named anew takes nothing of
    the one before; one that is only moved to another host keeps all but its key. Without ``ours`` the keys are an API's
    own and mean neither."""
    if ours and begins_anew(below, given):
        return dict(given)
    merged = _moved(below, given) if ours else {**below, **given}
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            merged[key] = merge(below[key], value, ours and key != FOREIGN)
    return merged


def begins_anew(below: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Return whether ``given`` names another API than the settings ``below``, which then have no part in it: what they
    leave open may stand for a default. The name of a preset always does; a kind, where it is another one."""
    return given.get("preset") is not None or ("kind" in given and given["kind"] != _shipped(below).get("kind"))


def resolved(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``given`` over what its preset and its kind bring. Raises ValueError if they belong to different APIs."""
    name, kind = given.get("preset"), given.get("kind")
    if isinstance(name, str):
        try:
            settings = preset(name)
        except UserError as error:
            raise SettingsConflict(f"{error.what}. {error.hint}", "preset") from None
        if kind not in (None, settings.get("kind", "openai")):
            raise SettingsConflict(f"kind is {kind!r}, but the preset {name!r} has another kind", "preset", "kind")
    return _moved(_shipped(given), given)


def _shipped(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the preset and the kind of ``given`` bring, with the kind in any case; nothing of a
    preset that is none."""
    name = given.get("preset")
    brought = preset(name) if isinstance(name, str) and name in presets() else {}
    kind = given.get("kind") or brought.get("kind", "openai")
    if isinstance(kind, str) and kind in BASES:
        brought = {"base_url": BASES[kind], "api_key_env": KEYS[kind], **brought}
    if kind == "anthropic":  # newer models answer sampling settings with 400
        brought = {"sampling": False, **brought}
    return {**brought, "kind": kind}


def _moved(below: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``given`` laid over ``below``, key by key and section by section. If ``given`` names another API, nothing
    of the one below is kept; if it only changes the host, everything but the key is kept. Without ``ours`` the keys
    belong to the API (``extra_body``), and neither rule applies."""
    merged = {**below, **given}
    if "base_url" in given and "api_key_env" not in given:
        before = {**_shipped(below), **below}
        if before.get("api_key_env") is not None and _place(before.get("base_url")) != _place(given["base_url"]):
            merged["api_key_env"] = UNSAID
    if "price" in below and "price" not in given and given.get("model", below.get("model")) != below.get("model"):
        merged["price"] = None
    return merged


def _place(address: Any) -> tuple[str, str | None] | None:
    """Host, and whether the way there is encrypted."""
    try:
        parts = urlsplit(address) if isinstance(address, str) else None
        return (parts.scheme, parts.hostname) if parts else None
    except ValueError:
        return None


def presets() -> list[str]:
    """Their names, in order."""
    return shipped(FOLDER)


def preset(name: str) -> dict[str, Any]:
    """Return the settings called ``name``. Raises UserError, with the nearest name, if there are none."""
    if name not in presets():
        raise UserError(f"unknown preset {name!r}", where=name, hint=nearest(name, presets()))
    text = (importlib.resources.files("cbtrain.configs") / FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))
