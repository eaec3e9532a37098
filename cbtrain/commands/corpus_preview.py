"""``cbtrain corpus preview``: what a session is to the model, token by token, and which tokens it learns from."""

from __future__ import annotations

import argparse
import json
import re
from itertools import groupby
from typing import TYPE_CHECKING, Any

from cbtrain.commands.corpus_reading import config_of, on_bad_of, reading, source_of
from cbtrain.errors import UserError, nearest

if TYPE_CHECKING:
    from cbtrain.tokens.chat import Document
    from cbtrain.transcripts.reading import CorpusSource
    from cbtrain.transcripts.types import Session

SUPERVISED, CONTEXT = "#06281c on #8fe3b4", "dim"


def preview(parsed: argparse.Namespace) -> None:
    """Render one cleaned session exactly as training does, and show its supervised tokens."""
    if parsed.corpus:
        parsed.path = parsed.corpus
    document, tokenizer = _document(parsed)
    ids = document.ids.tolist()
    if parsed.json:
        tokens = [
            {"id": token, "text": tokenizer.decode([token]), "supervised": kept, "weight": float(kept)}
            for token, kept in zip(ids, document.supervised.tolist(), strict=True)
        ]
        print(json.dumps(tokens, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(record=bool(parsed.svg))
    count = int(document.supervised.sum())
    head = f"{document.name}: {len(ids):,} tokens, {count:,} supervised ({count / len(ids):.0%}), by {parsed.model}"
    console.print(Text(head, "bold"), soft_wrap=not parsed.svg)
    console.print(Text.assemble(("learnt", SUPERVISED), "  ", ("context only", CONTEXT), "\n"))
    shown = Text()
    # Runs, not single tokens: a character may be spread over several tokens.
    for kept, run in groupby(zip(document.supervised.tolist(), ids, strict=True), key=lambda pair: pair[0]):
        shown.append(tokenizer.decode([token for _, token in run]), SUPERVISED if kept else CONTEXT)
    if parsed.lines:
        shown = Text("\n").join(shown.wrap(console, console.width)[: parsed.lines])
    console.print(shown)
    if parsed.svg:
        from cbtrain.files import write_atomic

        picture = console.export_svg(title=f"cbtrain corpus preview: {document.name}")
        # Fonts from the network: a picture that is opened should ask nobody for anything.
        write_atomic(parsed.svg, re.sub(r"@font-face\s*{[^}]*}", "", picture))


def _document(parsed: argparse.Namespace) -> tuple[Document, Any]:
    from cbtrain.eval.speakers import patient_system
    from cbtrain.model.weights import resolve_model
    from cbtrain.tokens.chat import ChatRenderer, check_template, dialogue
    from cbtrain.tokens.tokenizer import load_tokenizer
    from cbtrain.transcripts.cleaning import CleaningReport, clean_session

    config = config_of(parsed)
    tokenizer = load_tokenizer(resolve_model(parsed.model))
    renderer = ChatRenderer(tokenizer)
    check_template(renderer)
    source = source_of(parsed)
    profiles = source.profiles(on_bad_of(parsed))
    session = _find(parsed, source)
    profile = profiles.get(session.course)
    session = clean_session(session, config.corpus.cleaning, profile, CleaningReport())
    system = config.tokens.therapist_system if parsed.speaker == "therapist" else patient_system(profile)
    return renderer.document(session.id, dialogue(session.turns, parsed.speaker, system)), tokenizer


def _find(parsed: argparse.Namespace, source: CorpusSource) -> Session:
    """The session that is named, else the first one."""
    known: list[str] = []
    with reading(source, parsed) as sessions:
        for session in sessions:
            if parsed.session in (None, session.id):
                return session
            known.append(session.id)
    raise UserError(f"no session {parsed.session!r}", where=source.name, fix=nearest(parsed.session, known))
