"""Write pairs to a file, and beside it whose they are, so that a later evaluation can keep away from these patients."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cbtrain
from cbtrain.errors import UserError
from cbtrain.files import atomic_file, write_atomic
from cbtrain.transcripts.types import Session
from cbtrain.transcripts.writing import pair_record

PATIENTS_SCHEMA = "cbtrain.pair-patients/1"

SYSTEM = "system"
"""The fact that holds the system prompt with which the prompt was answered."""

BESIDE = ".patients.json"
"""What the name of a file of pairs has added in the file that says whose they are."""


def patients_beside(path: Path) -> Path:
    """Return the file that says of which patients the pairs in ``path`` are."""
    return path.with_name(f"{path.name}{BESIDE}")


def require_new_file(path: Path) -> None:
    """Raise UserError if ``path`` is no ``.jsonl``, or is there already."""
    if path.suffix != ".jsonl":
        raise UserError("pairs are written as JSON lines", where=path, hint="Name a file that ends in .jsonl.")
    if path.exists() or path.is_symlink():
        raise UserError("already exists", where=path, hint="Choose another --out.")


def write_pairs(pairs: Sequence[Session], path: Path, about: Mapping[str, Any]) -> None:
    """Write ``pairs``, whose courses are their ids, to ``path``, and beside it the number of pairs of each patient and
    what ``about`` says of those who were left out. Raises UserError if there are none."""
    if not pairs:
        raise UserError("no pair could be made", where=path, hint="The lines above say what was left out, and why.")
    counts = Counter(pair.patient for pair in pairs)
    content = {
        "schema": PATIENTS_SCHEMA,
        "pairs": len(pairs),
        "patients": dict(sorted(counts.items())),
        **about,
        "made_by": made_by(),
    }
    write_atomic(patients_beside(path), json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for pair in pairs:
            file.write(json.dumps(pair_record(pair), ensure_ascii=False) + "\n")


def made_by() -> str:
    """Return the program and its version, for the facts of a pair."""
    return f"cbtrain {cbtrain.__version__}"
