"""``cbtrain judge``: rate sessions with judges, and see what they are told."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cbtrain.cli import judge_audit, judge_train
from cbtrain.cli.corpus_reading import add_reading, config_of, whole
from cbtrain.cli.parser import (
    ALIASES,
    Commands,
    Parser,
    add_command,
    add_optional_word,
    add_study_arguments,
    add_upload_argument,
    continued_by,
    leading_console,
)
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from cbtrain.study.evaluation.judges import Judge
    from cbtrain.transcripts.types import Turn

SETTINGS = (
    "Settings are key=value: evaluation.judging describes one rater, evaluation.judges several by name. Without a key "
    f"for an LLM judge the embedded cue rater (a smoke test) rates. {ALIASES}"
)


def add(commands: Commands) -> None:
    """Add ``judge`` and its sub-commands."""
    text = "judges: rate sessions, show what they are told, train a rater of one's own"
    parser = add_command(commands, "judge", rate, text)
    judges = parser.add_commands(metavar="COMMAND", required=True)
    score = add_command(judges, "score", rate, "score existing sessions, as labelled in their files", SETTINGS)
    add_optional_word(score, "path", "transcripts in any format, or a run folder", "corpus.path")
    _add_judging(score)
    score.add_argument(
        "--out",
        required=True,
        type=Path,
        help="folder for scores.csv and rubric.yaml; an interrupted run in it continues",
    )
    add_reading(score, "format of the transcripts (see `cbtrain corpus --help`)")
    add_upload_argument(score, "transcripts")

    prompt = add_command(
        judges,
        "prompt",
        _prompt,
        "show what a judge is told, word for word; nothing is sent",
        f"With PATH, for the first session there that can be rated. {SETTINGS}",
    )
    add_optional_word(prompt, "path", "transcripts in any format, or a run folder", "corpus.path")
    _add_judging(prompt)
    prompt.add_argument("--judge", metavar="NAME", help="one of evaluation.judges (default: all)")
    prompt.add_argument("--session", metavar="ID", help="the session to show, by its id")
    prompt.add_argument("--json", action="store_true", help="print each call as a JSON object, with its schema")
    add_reading(prompt, "format of the transcripts (see `cbtrain corpus --help`)")
    judge_audit.add(judges)
    judge_train.add(judges)


def _add_judging(parser: Parser) -> None:
    add_study_arguments(parser, "evaluation.judging.judge.repeats=3")
    text = "the instrument: a shipped rubric or a YAML file"
    parser.add_alias("--rubric", "evaluation.judging.rubric", metavar="NAME", help=text)
    parser.add_alias("--rater", "evaluation.judging.rater", metavar="KIND", help="llm, cue or auto")
    text = "what an LLM judge is told: default, or a YAML file with a template"
    parser.add_alias("--prompt", "evaluation.judging.judge.prompt", metavar="FILE", help=text)


def rate(parsed: argparse.Namespace) -> None:
    """Carry out ``judge score`` and its older name ``rate``."""
    from cbtrain.study.evaluation.rate import rate_corpus

    config = config_of(parsed)
    with continued_by(parsed.command_line, "--out", parsed.out):
        rate_corpus(config, parsed.out, leading_console(), allow_upload=parsed.allow_upload)


def _prompt(parsed: argparse.Namespace) -> None:
    from cbtrain.eval.rating.ratable import why_unratable
    from cbtrain.study.evaluation.judges import jury_of
    from cbtrain.study.evaluation.scores import records

    config = config_of(parsed)
    jury = jury_of(config.evaluation, config.providers, to_ask=False)
    judges = [judge for judge in jury.apis if parsed.judge in (None, judge.name)]
    if not judges:
        names = ", ".join(judge.name for judge in jury.apis) or "none"
        raise UserError(f"no LLM judge {parsed.judge!r}", where="--judge", hint=f"LLM judges: {names}.")
    sessions = records(whole(parsed).sessions())
    wanted = (session for session in sessions if parsed.session in (None, session.id))
    session = next((session for session in wanted if not why_unratable(session.turns)), None)
    if session is None:
        what = f"no session {parsed.session!r} that can be rated" if parsed.session else "no session can be rated"
        raise UserError(what, where=config.corpus.path, hint="`cbtrain corpus check` tells what is in the files.")
    for judge in judges:
        _show(judge, session.id, session.turns, as_json=parsed.json)


def _show(judge: Judge, session: str, turns: Sequence[Turn], *, as_json: bool) -> None:
    import json

    from cbtrain.eval.rating.transcript_form import transcript_of

    asking = judge.asking
    assert judge.api is not None
    for number, domains in enumerate(asking.calls, 1):
        request = asking.request(domains, transcript_of(turns), repeat=0)
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        if as_json:
            call = {
                "judge": judge.name,
                "model": judge.api.model,
                "session": session,
                "messages": messages,
                "json_schema": request.json_schema,
                "temperature": request.temperature,
                "max_tokens": request.max_tokens,
                "seed": request.seed,
            }
            print(json.dumps(call, ensure_ascii=False))
            continue
        settings = f"temperature {request.temperature:g}, at most {request.max_tokens:,} tokens"
        calls = f"call {number} of {len(asking.calls)}, " if len(asking.calls) > 1 else ""
        repeats = f"{asking.config.repeats} ratings of each session, " if asking.config.repeats > 1 else ""
        print(f"=== {judge.label}: {calls}{repeats}{settings}; session {session}")
        for message in messages:
            print(f"\n--- {message['role']}\n{message['content']}")
        print()
