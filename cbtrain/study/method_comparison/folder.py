"""The folder of a comparison: its lock, and its file, by which it is known when it continues."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import yaml
from pydantic import BaseModel

from cbtrain.errors import UserError
from cbtrain.files import hold, write_atomic

LOCK, FILE = ".lock", "comparison.yaml"

ANOTHER = "Choose another --out."


def open_folder(file: BaseModel, folder: Path, free: Collection[str]) -> None:
    """Make and lock ``folder`` for the comparison of ``file``, whose keys ``free`` may have changed. Raises UserError
    if something else is there."""
    written = folder / FILE
    if folder.exists() and any(path.name != LOCK for path in folder.iterdir()) and not written.is_file():
        raise UserError("exists and holds no comparison", where=folder, hint=ANOTHER)
    folder.mkdir(parents=True, exist_ok=True)
    if not hold(folder / LOCK):
        hint = "Wait for it, end it, or choose another --out."
        raise UserError("another comparison is running in this folder", where=folder, hint=hint)
    if not written.is_file():
        write_file(file, folder)
        return
    before = yaml.safe_load(written.read_text(encoding="utf-8"))
    now = file.model_dump(mode="json")
    if not isinstance(before, dict) or before.keys() != now.keys():
        raise UserError("a comparison of another kind is in this folder", where=folder, hint=ANOTHER)
    if differs := [key for key in now if key not in free and before[key] != now[key]]:
        raise UserError(f"the comparison here has another {' and '.join(differs)}", where=folder, hint=ANOTHER)


def write_file(file: BaseModel, folder: Path) -> None:
    """Write the settings of a comparison to its folder."""
    text = yaml.safe_dump(file.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomic(folder / FILE, text)
