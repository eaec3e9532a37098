"""Adapters on the command line: ``--adapter NAME=DIR``, or a folder alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cbtrain.errors import UserError


def adapters_of(values: Sequence[str], unnamed: Callable[[Path], str]) -> dict[str, Path]:
    """Return the folders that ``values`` name, by name; one without a name is called ``unnamed(folder)``.

    A value that is a folder is one, even with ``=`` in its path. Raises UserError on a name that comes twice.
    """
    folders: dict[str, Path] = {}
    for value in values:
        name, equals, folder = value.partition("=")
        if not equals or Path(value).is_dir():
            name, folder = unnamed(Path(value)), value
        if not name or not folder:
            raise UserError(f"{value!r} has no name or no folder", where="--adapter", hint="Write NAME=DIR, or DIR.")
        if name in folders:
            hint = "Give each its own: --adapter NAME=DIR."
            raise UserError(f"two adapters are called {name!r}", where="--adapter", hint=hint)
        folders[name] = Path(folder)
    return folders
