"""Write patients as YAML: a file each in a folder, or all in one file; also as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cbtrain.errors import UserError
from cbtrain.files import write_atomic, written_together
from cbtrain.patients.case import CASE_SCHEMA, Case

LINES, FILES = (".jsonl", ".ndjson"), (".yaml", ".yml")
WIDTH = 110


class _Dumper(yaml.SafeDumper):
    """Writes long and broken texts as blocks, which people can read and correct."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def record_of(case: Case) -> dict[str, Any]:
    """Return a patient as a record of the schema, without fields that are not given."""
    return {"schema": CASE_SCHEMA, **case.model_dump(mode="json", exclude_defaults=True)}


def yaml_of(case: Case, note: str = "") -> str:
    """Return a patient as YAML, after ``note`` as a comment."""
    return _comment(note) + _dump(record_of(case))


def require_absent(path: Path) -> None:
    """Raise UserError if ``path`` exists (an empty folder may), or if it is no kind of file of patients."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError("already exists", where=path, hint="Choose another --out; nothing is overwritten.")
    if path.suffix.lower() not in (*LINES, *FILES, "") and not path.is_dir():
        kinds = ", ".join((*FILES, *LINES))
        raise UserError(f"unknown kind of file {path.suffix}", where=path, hint=f"Name a folder, or {kinds}.")


def write_cases(cases: Sequence[Case], path: Path, note: str = "") -> None:
    """Write ``cases`` to ``path``, by its suffix: one YAML file, JSON Lines (which have no place for ``note``), or a
    folder with a YAML file for each. Raises UserError as :func:`require_absent`."""
    require_absent(path)
    if path.suffix.lower() in LINES:
        write_atomic(path, "".join(f"{json.dumps(record_of(case), ensure_ascii=False)}\n" for case in cases))
    elif path.suffix.lower() in FILES:
        write_atomic(path, _comment(note) + _dump({"patients": [record_of(case) for case in cases]}))
    else:
        with written_together(path) as folder:
            for case in cases:
                (folder / f"{case.id}.yaml").write_text(yaml_of(case, note), encoding="utf-8")


def _comment(note: str) -> str:
    return f"# {' '.join(note.split())}\n" if note else ""


def _dump(content: Any) -> str:
    return yaml.dump(content, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=WIDTH)
