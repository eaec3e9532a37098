"""The public files of the published comparison, known by name, size and SHA-256. None of them is shipped."""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class PublicFile:
    """A file of the repository at the commit by which it was counted. ``positive`` and ``negative`` are 0 where the
    answers begin with neither Yes nor No."""

    file: str
    sha256: str
    rows: int
    positive: int
    negative: int

    @property
    def counts(self) -> str:
        if not self.positive + self.negative:
            return f"{self.rows:,} rows, whose answers begin with neither Yes nor No"
        return f"{self.rows:,} rows, {self.positive:,} positive, {self.negative:,} negative"


@cache
def public_files() -> tuple[PublicFile, ...]:
    """Return those whose labels could be counted."""
    text = (importlib.resources.files(__package__) / "public_files.json").read_text("utf-8")
    return tuple(PublicFile(**entry) for entry in json.loads(text)["files"])


def compared_with_public(path: Path, rows: int, positives: int) -> str:
    """Return in a line whether ``path``, in which ``rows`` and ``positives`` were counted, is one of the public files;
    "" if neither name nor content is known."""
    with path.open("rb") as file:
        digest = sha256(file.read()).hexdigest()
    known = next((entry for entry in public_files() if entry.sha256 == digest), None)
    if known is not None:
        differs = known.positive + known.negative and (known.rows, known.positive) != (rows, positives)
        but = f", but {rows:,} rows and {positives:,} positive were counted here" if differs else ""
        return f"is the public {known.file} ({known.counts}){but}"
    named = [entry for entry in public_files() if PurePosixPath(entry.file).name == path.name]
    if named:
        return f"is named as the public {named[0].file} ({named[0].counts}), but its content is another"
    return ""
