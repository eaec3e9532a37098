"""Shared by the ``corpus`` commands: read the sessions, and show their number."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cbtrain.console import counting

if TYPE_CHECKING:
    from cbtrain.transcripts.reading import CorpusSource
    from cbtrain.transcripts.source import OnBad
    from cbtrain.transcripts.types import Session


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the speakers' labels in plain text."""
    for role in ("therapist", "patient"):
        text = f"a label of the {role} in plain text, in place of the common ones (repeatable)"
        parser.add_argument(f"--{role}-label", action="append", default=[], metavar="NAME", help=text)


def source_of(parsed: argparse.Namespace) -> CorpusSource:
    from cbtrain.transcripts.reading import locate, speaker_labels

    labels = speaker_labels(parsed.therapist_label, parsed.patient_label)
    return locate(parsed.path, parsed.format, labels)


def whole(parsed: argparse.Namespace) -> Any:
    from cbtrain.transcripts.reading import read, speaker_labels

    labels = speaker_labels(parsed.therapist_label, parsed.patient_label)
    corpus = read(parsed.path, parsed.format, labels=labels, skip_bad=parsed.skip_bad)
    tell_skipped(list(corpus.skipped))
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
            raise no_sessions(source, len(skipped))

    yield sessions()
    tell_skipped(skipped)


def on_bad_of(parsed: argparse.Namespace, skipped: list[str] | None = None) -> OnBad:
    from cbtrain.transcripts.reading import refuse_with_hint

    kept = [] if skipped is None else skipped
    return (lambda error: kept.append(str(error))) if parsed.skip_bad else refuse_with_hint


def tell_skipped(skipped: list[str]) -> None:
    for line in skipped:
        print(f"left out: {line}", file=sys.stderr)
    if skipped:
        print(f"{len(skipped)} faults: the sessions or files named were left out", file=sys.stderr)


def config_of(parsed: argparse.Namespace) -> Any:
    from cbtrain.config.loading import load_config

    return load_config(parsed.config, parsed.settings)
