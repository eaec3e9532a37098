"""Read settings: YAML files, shipped configs by name, ``extends``, and FAMILY-RECIPE combinations."""

from __future__ import annotations

import importlib.resources
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError, nearest
from cbtrain.files import exists, expanded, shipped
from cbtrain.settings import parse_yaml

EXTENDS = "extends"
"""The key of a config file that names another one to start from. Resolved settings do not have it."""
EXTENDS_MEANING = "config to start from: a shipped one, or the path of a file, relative to this one"

STUDIES, SYNTHESIS = ".", "synthesis"
"""Folders of the shipped configs of each kind."""

FAMILIES, RECIPES = "families", "recipes"
"""Folders of what a combined name is made of. Neither is a config by itself."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Settings with the name of the file in which they stand, and what that file extends."""

    name: str
    values: dict[str, Any]
    extends: str | None = None


def shipped_configs(folder: str = STUDIES) -> list[str]:
    """Return the names of the shipped configs of one kind: studies, or those of ``folder``."""
    names = set(shipped(folder))
    if folder == STUDIES:
        names |= {f"{family}-{recipe}" for family in shipped_families() for recipe in shipped_recipes()}
    return sorted(names)


def shipped_families() -> list[str]:
    """Return the names of the families of models that have settings."""
    return shipped(FAMILIES)


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that every family can be trained by."""
    return shipped(RECIPES)


def first_comment(name: str, folder: str = STUDIES) -> str:
    """Return what a shipped config says of itself in its first line; of a combination, both parts."""
    parts = _combination(name, folder)
    if parts:
        return ": ".join(first_comment(part, folder) for part, folder in zip(parts, (FAMILIES, RECIPES), strict=True))
    return _shipped_text(posixpath.join(folder, f"{name}.yaml")).partition("\n")[0].lstrip("# ")


def read_layers(source: str, folder: str = STUDIES) -> list[Layer]:
    """Return the settings of ``source``, a YAML file or the name of a shipped config, after those that it extends: the
    first layer lies lowest.

    Raises UserError on a missing or malformed file, and on a file that is extended and extends another one.
    """
    path = Path(source)
    if not exists(path):
        return _shipped_layers(source, folder)
    layer = read_layer(path)
    return [*(_extended_layers(layer.extends, path, folder) if layer.extends else []), layer]


def read_layer(path: Path) -> Layer:
    """Return the settings that stand in the file ``path`` itself. Raises UserError as :func:`read_layers`."""
    return _parse(str(path), lambda: path.read_text(encoding="utf-8"))


def _extended_layers(name: str, path: Path, folder: str) -> list[Layer]:
    """Return the layers that the file ``path`` extends: a file by its path from there, or a shipped config."""
    file = path.parent / expanded(name)
    if not (exists(file) and file.is_file()):
        if name not in shipped_configs(folder):
            hint = _nearest_config(name, folder)
            raise UserError(
                f"extends {name!r}: there is no such shipped config, and no such file", where=path, hint=hint
            )
        return _shipped_layers(name, folder)
    extended = read_layer(file)
    if extended.extends:
        hint = f"Only one level is allowed: extend {extended.extends!r} here, and copy what you need from {name}."
        raise UserError(f"extends {name!r}, which itself extends {extended.extends!r}", where=path, hint=hint)
    return [extended]


def _shipped_layers(name: str, folder: str) -> list[Layer]:
    """Return the layers of a shipped config. A combination has those of its family, of its recipe, and what the family
    says about this recipe."""
    parts = _combination(name, folder)
    if not parts and name not in shipped(folder):
        raise UserError("no such config file", where=name, hint=_nearest_config(name, folder))
    if not parts:
        return _with_extended(posixpath.join(folder, f"{name}.yaml"))
    family, recipe = parts
    family_layer = _read_shipped(f"{FAMILIES}/{family}.yaml")
    values = {key: value for key, value in family_layer.values.items() if key != RECIPES}
    recipe_values = family_layer.values.get(RECIPES, {}).get(recipe, {})
    return [
        Layer(family_layer.name, values),
        *_with_extended(f"{RECIPES}/{recipe}.yaml"),
        Layer(family_layer.name, recipe_values),
    ]


def _with_extended(file: str) -> list[Layer]:
    """Return a shipped file after the one that it extends, which is named by its path from there."""
    layer = _read_shipped(file)
    below = posixpath.join(posixpath.dirname(file), layer.extends) if layer.extends else None
    return [*([_read_shipped(below)] if below else []), layer]


def _combination(name: str, folder: str) -> tuple[str, str] | None:
    """Return the family and the recipe in ``name``; None if it is not a combination of shipped ones."""
    family, _, recipe = name.rpartition("-")
    fits = folder == STUDIES and family in shipped_families() and recipe in shipped_recipes()
    return (family, recipe) if fits else None


def _nearest_config(name: str, folder: str) -> str:
    if folder == STUDIES and name in shipped_families():
        return f"Add a recipe: {', '.join(f'{name}-{recipe}' for recipe in shipped_recipes())}."
    if folder == STUDIES and name in shipped_recipes():
        return f"Add a family: {', '.join(f'{family}-{name}' for family in shipped_families())}."
    return nearest(name, shipped_configs(folder))


def _read_shipped(file: str) -> Layer:
    file = posixpath.normpath(file)
    return _parse(f"configs/{file}", lambda: _shipped_text(file))


def _shipped_text(file: str) -> str:
    return (importlib.resources.files("cbtrain.configs") / posixpath.normpath(file)).read_text("utf-8")


def _parse(name: str, read: Callable[[], str]) -> Layer:
    """Return the settings in the text that ``read`` returns. Raises UserError, with ``name`` as its place."""
    values = parse_yaml(read, name)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError("not a mapping of keys to values", where=name, hint="See `cbtrain config show`.")
    extends = values.pop(EXTENDS, None)
    if extends is not None and not (isinstance(extends, str) and extends):
        hint = "Name one shipped config, or the path of one file, relative to this one."
        raise UserError(f"extends: {extends!r} is not a name", where=name, hint=hint)
    return Layer(name, values, extends)
