"""Read a corpus from wherever it lies, in whichever known layout."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from pathlib import Path

from cbtrain.errors import UserError, nearest
from cbtrain.transcripts.author_repository import is_author_repository, read_author_repository
from cbtrain.transcripts.canonical import is_canonical, read_canonical
from cbtrain.transcripts.types import Corpus

SAMPLE = "sample"

READERS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Corpus]]] = {
    "author": (is_author_repository, read_author_repository),
    "cbtrain": (is_canonical, read_canonical),
}
"""Each format's detector and reader."""


def read(path: str | Path, format: str = "auto") -> Corpus:
    """The corpus at ``path`` as labelled in its files; ``sample`` is the embedded one.

    Raises UserError on a missing or unreadable path, an unknown format, malformed content (file and line), no session.
    """
    if format != "auto" and format not in READERS:
        raise UserError(f"unknown format {format!r}", where="corpus", fix=nearest(format, [*READERS, "auto"]))
    if str(path) == SAMPLE:
        with importlib.resources.as_file(importlib.resources.files("cbtrain.transcripts") / SAMPLE) as folder:
            corpus = read_canonical(folder)
        return Corpus(SAMPLE, corpus.format, corpus.courses, corpus.facts)
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError("no such file or folder", where=path, fix="Name a corpus, or 'sample' for the embedded one.")
    try:
        corpus = _reader(path, format)(path)
    except PermissionError as error:
        raise UserError("permission denied", where=error.filename or path, fix="Change its permissions.") from None
    if not any(True for _ in corpus.sessions()):
        raise UserError("no sessions in it", where=path, fix="Check the path and the format.")
    return corpus


def _reader(path: Path, format: str) -> Callable[[Path], Corpus]:
    if format != "auto":
        return READERS[format][1]
    for detect, reader in READERS.values():
        if detect(path):
            return reader
    raise UserError(
        "no known corpus layout",
        where=path,
        fix="Known: a folder with Synthetic_Transcripts/ (author), a .jsonl file or a folder with sessions.jsonl "
        "(cbtrain).",
    )
