"""``cbtrain corpus guess``: print a map for files of an unknown layout, and what is not sure about it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from cbtrain.cli.corpus_reading import config_of
from cbtrain.errors import UserError
from cbtrain.files import exists, expanded

if TYPE_CHECKING:
    from cbtrain.transcripts.mapping.config import CorpusMap
    from cbtrain.transcripts.types import Role

SHOWN, TURNS, WIDTH = 3, 4, 90
"""Sessions, turns of each, and characters of a turn that are shown."""


def guess(parsed: argparse.Namespace) -> None:
    """Print the map as YAML, everything else as comments in it."""
    import yaml

    from cbtrain.transcripts.mapping import guess as guessing
    from cbtrain.transcripts.mapping.config import CorpusMap
    from cbtrain.transcripts.reading import speaker_labels

    settings = config_of(parsed).corpus
    path = expanded(settings.path)
    if not exists(path):
        raise UserError("no such file or folder", where=path, hint="Name a corpus.")
    labels = speaker_labels(settings.therapist_labels, settings.patient_labels)
    guessed = guessing.guess(path, labels, expanded(settings.metadata) if settings.metadata else None)
    print(f"# {_line(guessed.seen)}")
    print(yaml.safe_dump(guessed.map, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100).rstrip())
    roles = guessed.roles(labels)
    if guessed.speakers:
        print("# speakers:")
        for name, count in guessed.speakers.most_common(20):
            role = roles[name] or "system prompt"
            files = guessed.in_files[name]
            where = f" in {files:,} of {guessed.files:,} files" if files < guessed.files else ""
            print(f"#   {_line(name)}: {count:,} turns{where} ({'not known: decide' if role == '?' else role})")
    for doubt in guessed.unsure:
        print(f"# not sure: {_line(doubt)}")
    _show_sessions(path, CorpusMap.model_validate(guessed.map), labels)
    print(f"# Save it as map.yaml, correct it, then: cbtrain corpus stats {path} --map map.yaml")


def _show_sessions(path: Path, corpus_map: CorpusMap, labels: Mapping[str, Role]) -> None:
    """Print the beginning of the first sessions as this map reads them, or why it does not."""
    from cbtrain.transcripts.cleaning import excerpt
    from cbtrain.transcripts.reading import locate

    try:
        for session in islice(locate(path, labels=labels, corpus_map=corpus_map).sessions(lambda error: None), SHOWN):
            pair = session.preference
            shown = session.turns if pair is None else session.turns[: pair.begin]
            what = "session" if pair is None else "prompt of pair"
            print(f"# {what} {session.id}, {len(shown)} turns")
            for turn in shown[:TURNS]:
                print(f"#   {turn.role}: {excerpt(turn.text, WIDTH)}")
            for name, turns in (("chosen", session.turns[pair.begin :]), ("rejected", pair.rejected)) if pair else ():
                for turn in turns[:TURNS]:
                    print(f"#   {name}: {turn.role}: {excerpt(turn.text, WIDTH)}")
    except UserError as error:
        print(f"# as it is, it reads nothing: {error.what}")


def _line(text: str) -> str:
    """Return ``text`` on one line, as a comment needs it."""
    return " ".join(text.split())
