"""``cbtrain corpus preview``: a session as the model reads it, token by token, with the tokens it learns from."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from cbtrain.cli.corpus_model import at_least_one, stage_of
from cbtrain.cli.corpus_reading import config_of, on_bad_of, reading, source_of, tell_own_prompts
from cbtrain.errors import UserError, nearest

if TYPE_CHECKING:
    from cbtrain.tokens.chat import ChatRenderer
    from cbtrain.tokens.document import Document
    from cbtrain.transcripts.reading import CorpusSource
    from cbtrain.transcripts.types import Course, Session

CONTEXT, LEARNT, LESS, MORE = "dim", "#06281c on #8fe3b4", "#2b2200 on #f2d98b", "#06281c on #4fd18b bold"


def preview(parsed: argparse.Namespace) -> None:
    """Render one cleaned session (or its course) exactly as training does, and show its supervised tokens."""
    at_least_one(parsed.lines, "--lines")
    if parsed.corpus and parsed.path not in (None, parsed.corpus):
        raise UserError(f"two corpora are named, {parsed.path} and {parsed.corpus}", where="--corpus", hint="Name one.")
    documents, renderer = _documents(parsed)
    if parsed.json:
        print(json.dumps([token for d in documents for token in _tokens(d, renderer)], ensure_ascii=False))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(record=bool(parsed.svg))
    _legend(documents, renderer, parsed, console)
    lines = 0
    for document in documents:
        if len(documents) > 1:
            console.print(Text(f"\n{document.name}: {_counts(document)}", "bold"), soft_wrap=not parsed.svg)
        shown = _coloured(document, renderer)
        if parsed.lines:
            shown = Text("\n").join(shown.wrap(console, console.width)[: parsed.lines - lines])
            lines += shown.plain.count("\n") + 1
        console.print(shown)
        if parsed.lines and lines >= parsed.lines:
            break
    if parsed.svg:
        from cbtrain.files import write_atomic

        picture = console.export_svg(title=f"cbtrain corpus preview: {documents[0].name}")
        # Fonts from the network: a picture that is opened should ask nobody for anything.
        write_atomic(parsed.svg, re.sub(r"@font-face\s*{[^}]*}", "", picture))


def _tokens(document: Document, renderer: ChatRenderer) -> list[dict[str, Any]]:
    return [
        {"id": token, "text": renderer.decode([token]), "supervised": weight > 0, "weight": round(weight, 6)}
        for token, weight in zip(document.ids.tolist(), document.loss_weights.tolist(), strict=True)
    ]


def _legend(documents: Sequence[Document], renderer: ChatRenderer, parsed: argparse.Namespace, console: Any) -> None:
    from rich.text import Text

    name = documents[0].name.partition("#")[0].partition("@")[0]
    pieces = f", {len(documents)} documents" if len(documents) > 1 else ""
    total = f"{name}: {_counts(*documents)}{pieces}, by {config_of(parsed).model.path}"
    console.print(Text(total, "bold"), soft_wrap=not parsed.svg)
    chat_format = renderer.format
    note = f" ({chat_format.note})" if chat_format.note else ""
    console.print(Text(f"chat format: {chat_format.name}{note}"), soft_wrap=not parsed.svg)
    weights = sorted({float(w) for d in documents for w in d.loss_weights[d.loss_weights > 0].round(6)} | {1.0})
    marks = [(f"learnt{'' if weight == 1 else f', weight {weight:g}'}", _style(weight)) for weight in weights]
    parts = [part for mark in marks for part in (mark, "  ")]
    console.print(Text.assemble(*parts, ("context only", CONTEXT), "\n"))


def _counts(*documents: Document) -> str:
    count, learnt = sum(map(len, documents)), sum(int(d.supervised.sum()) for d in documents)
    return f"{count:,} tokens, {learnt:,} supervised ({learnt / count:.0%})"


def _coloured(document: Document, renderer: ChatRenderer) -> Any:
    from rich.text import Text

    shown = Text()
    # Runs, not single tokens: a character may be spread over several tokens.
    for weight, run in groupby(
        zip(document.loss_weights.tolist(), document.ids.tolist(), strict=True), lambda pair: pair[0]
    ):
        shown.append(renderer.decode([token for _, token in run]), _style(weight))
    return shown


def _style(weight: float) -> str:
    if weight == 0:
        return CONTEXT
    return LEARNT if weight == 1 else LESS if weight < 1 else MORE


def _documents(parsed: argparse.Namespace) -> tuple[list[Document], ChatRenderer]:
    from cbtrain.tokens.dialogue import system_prompts
    from cbtrain.tokens.document_builder import place_of, units_of
    from cbtrain.tokens.mask_check import check_dialogue, check_renderer
    from cbtrain.tokens.tokenize import CHECKED_MESSAGES

    stage = stage_of(parsed, parsed.supervise)
    config, builder = stage.config, stage.builder()
    check_renderer(builder.renderer)
    course, session = _find(parsed, source_of(parsed), config.corpus.cleaning)
    units = units_of(course, config.tokens, system_prompts(course, parsed.speaker, config.tokens))
    unit = next(unit for unit in units if session in {member.id for member in unit.sessions})
    check_dialogue(builder.renderer, builder.messages(unit)[:CHECKED_MESSAGES], place_of(unit))
    return builder.build(unit).documents, builder.renderer


def _find(parsed: argparse.Namespace, source: CorpusSource, policy: Any) -> tuple[Course, str]:
    """Return the cleaned course of the named session (default: the first one), and that session's id."""
    from cbtrain.tokens.system_prompts import OwnPrompts
    from cbtrain.transcripts.cleaning import CleaningReport, clean_session
    from cbtrain.transcripts.types import Course

    profiles = source.profiles(on_bad_of(parsed))
    wanted: Session | None = None
    course = parsed.session.rpartition("/")[0] if parsed.session else None
    session_ids, course_sessions, prompts = [], [], OwnPrompts()
    with reading(source, parsed) as sessions:
        for session in sessions:
            session_ids.append(session.id)
            prompts.add(session)
            course = course or session.course
            if session.course == course:
                course_sessions.append(session)
            if wanted is None and parsed.session in (None, session.id):
                wanted = session
    if wanted is None:
        raise UserError(f"no session {parsed.session!r}", where=source.name, hint=nearest(parsed.session, session_ids))
    if wanted.preference is not None:
        print(f"note: {wanted.id} is a pair of answers; the chosen one is shown", file=sys.stderr)
    tell_own_prompts(prompts, parsed)
    profile = profiles.get(wanted.course)
    course_sessions.sort(key=lambda session: session.number)
    labels = source.given_labels
    cleaned = [clean_session(session, policy, profile, CleaningReport(), labels) for session in course_sessions]
    return Course(wanted.course, tuple(s for s in cleaned if s.turns or s.id == wanted.id), profile), wanted.id
