"""Parse the adapters of a command that takes several: ``--adapter DIR`` and ``--adapter NAME=DIR``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cbtrain.errors import UserError
from cbtrain.files import expanded, is_folder

OPTION = "--adapter"


def adapters_of(values: Sequence[str], unnamed: Callable[[Path], str]) -> dict[str, Path]:
    """Return the folders of adapters by name, in order. ``unnamed(folder)`` names one that is given without a name.

    A value is ``NAME=DIR``, or the path of a folder, which may have ``=`` in it: a name has no ``/``, and what exists
    is a path. Raises UserError on an empty name or path, and on two adapters of one name.
    """
    adapters: dict[str, Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        named = bool(equals) and "/" not in name and not is_folder(expanded(value))
        folder = expanded(path if named else value)
        if not (path if named else value) or (named and not name):
            raise UserError(f"{value!r} is neither DIR nor NAME=DIR", where=OPTION)
        name = name if named else unnamed(folder)
        if name in adapters:
            raise UserError(f"two adapters are named {name!r}", where=OPTION, hint="Name them: NAME=DIR.")
        adapters[name] = folder
    return adapters
