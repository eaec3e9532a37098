"""Shared by the ``corpus`` commands: read the sessions, and show their number."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbtrain.cli.parser import Parser, study_of
from cbtrain.console import counting
from cbtrain.errors import UserError
from cbtrain.files import require_new

if TYPE_CHECKING:
    from cbtrain.config.schema import StudyConfig
    from cbtrain.tokens.system_prompts import OwnPrompts
    from cbtrain.transcripts.reading import CorpusSource
    from cbtrain.transcripts.source import OnBad
    from cbtrain.transcripts.types import Session


def add_reading(parser: Parser, formats: str) -> None:
    """Add the options that say how a corpus is read: its format (``formats`` is the help), labels of the speakers in
    plain text, and whether malformed sessions are skipped."""
    parser.add_alias("--format", "corpus.format", help=formats)
    for role in ("therapist", "patient"):
        text = f"what the {role} is called in the files, instead of the common names (repeatable)"
        parser.add_alias(f"--{role}-label", f"corpus.{role}_labels", action="append", metavar="NAME", help=text)
    text = "YAML file that says where turns, speakers and patients are; `cbtrain corpus guess` prints one"
    parser.add_alias("--map", "corpus.map", metavar="FILE", help=text)
    text = "table that says of each file whose session it is (columns file, patient, session, arm and others)"
    parser.add_alias("--metadata", "corpus.metadata", metavar="FILE", help=text)
    text = "skip malformed sessions; they are listed and counted"
    parser.add_alias("--skip-bad", "corpus.skip_bad", action="store_true", help=text)


def source_of(parsed: argparse.Namespace) -> CorpusSource:
    from cbtrain.transcripts.reading import locate, speaker_labels

    corpus = config_of(parsed).corpus
    labels = speaker_labels(corpus.therapist_labels, corpus.patient_labels)
    return locate(corpus.path, corpus.format, labels, corpus.map, corpus.metadata)


def whole(parsed: argparse.Namespace, *, parts: bool = False) -> Any:
    """Return the corpus; with ``parts`` together with the files of its validation and test part."""
    from cbtrain.transcripts.parts import read_parts

    settings = config_of(parsed).corpus
    corpus, lines = read_parts(settings if parts else settings.model_copy(update={"validation": None, "test": None}))
    for line in lines:
        print(line, file=sys.stderr)
    tell_skipped(list(corpus.skipped))
    tell_notes(corpus.notes)
    return corpus


@contextmanager
def reading(
    source: CorpusSource, parsed: argparse.Namespace, on_bad: OnBad | None = None
) -> Iterator[Iterator[Session]]:
    """Yield the sessions, with a counter on the terminal. Raises UserError if there are none; lists malformed ones."""
    from cbtrain.transcripts.reading import no_sessions

    skipped: list[str] = []
    count = 0

    def sessions() -> Iterator[Session]:
        nonlocal count
        for session in counting(source.sessions(on_bad or on_bad_of(parsed, skipped)), "Reading"):
            count += 1
            yield session
        if not count:
            raise no_sessions(source, skipped)

    yield sessions()
    tell_skipped(skipped)
    tell_notes(source.notes.lines())


def on_bad_of(parsed: argparse.Namespace, skipped: list[str] | None = None) -> OnBad:
    from cbtrain.transcripts.reading import refuse_with_hint

    kept = [] if skipped is None else skipped
    return (lambda error: kept.append(str(error))) if config_of(parsed).corpus.skip_bad else refuse_with_hint


def tell_skipped(skipped: list[str]) -> None:
    for line in skipped:
        print(f"left out: {line}", file=sys.stderr)
    if skipped:
        print(f"{len(skipped)} faults: the sessions or files named were left out", file=sys.stderr)


def tell_own_prompts(prompts: OwnPrompts, parsed: argparse.Namespace) -> None:
    """Say what ``tokens.system`` makes of the sessions' own system prompts, if there are any."""
    if notice := prompts.notice(config_of(parsed).tokens):
        print(f"note: {notice}", file=sys.stderr)


def tell_notes(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"note: left out: {line}", file=sys.stderr)


def config_of(parsed: argparse.Namespace) -> StudyConfig:
    """Return the settings of a command on a corpus; they are read once. Raises UserError."""
    if not hasattr(parsed, "study"):
        parsed.study = study_of(parsed)
    config: StudyConfig = parsed.study
    return config


def is_new_file(path: Path) -> bool:
    """Return whether ``path`` names a file of sessions, else a folder. Raises UserError if it names neither, or exists
    and is not an empty folder."""
    from cbtrain.transcripts.source import suffix_of

    new(path)
    is_file = suffix_of(path) == ".jsonl"
    if not is_file and suffix_of(path) in (".json", ".gz", ".txt", ".csv"):
        raise UserError("neither a .jsonl file nor a folder's name", where=path, hint="Name NAME.jsonl or NAME.")
    return is_file


def new(path: Path) -> None:
    """Raise UserError if ``path`` is a link, or anything but a new or empty folder."""
    if path.is_symlink():
        raise UserError("already exists and is not an empty folder", where=path, hint="Choose another --out.")
    require_new(path)
