"""The libraries of patients that ship: folders of YAML files in ``configs/patients``. Nobody in them exists."""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

from cbtrain.errors import UserError, nearest
from cbtrain.patients.case import Case
from cbtrain.patients.faults import Faults
from cbtrain.patients.reading import cases_in
from cbtrain.settings import parse_yaml

if TYPE_CHECKING:
    from importlib.abc import Traversable  # elsewhere since Python 3.11

SUFFIX = ".yaml"


def libraries() -> list[str]:
    """Return the names of the shipped libraries."""
    folder = _folder()
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


def library(name: str) -> list[Case]:
    """Return the patients of the shipped library ``name``, sorted by id. Raises UserError if there is none so named."""
    if name not in libraries():
        raise UserError("no such library of patients", where=name, hint=nearest(name, libraries()))
    faults, found = Faults(), []
    for entry in _folder().joinpath(name).iterdir():
        if entry.name.endswith(SUFFIX):
            found += _cases(entry, f"{name}/{entry.name}", faults)
    faults.refuse()
    return sorted(found, key=lambda case: case.id)


def _folder() -> Traversable:
    return importlib.resources.files("cbtrain.configs").joinpath("patients")


def _cases(entry: Traversable, where: str, faults: Faults) -> list[Case]:
    content = parse_yaml(lambda: entry.read_text(encoding="utf-8"), where)
    return [case for _, case in cases_in(content, where, faults)]
