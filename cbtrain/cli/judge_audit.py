"""``cbtrain judge audit``: test a judge on changed copies of sessions."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbtrain.cli.corpus_reading import add_reading, config_of
from cbtrain.cli.parser import (
    Commands,
    Parser,
    add_command,
    add_optional_word,
    add_study_arguments,
    add_upload_argument,
    continued_by,
)
from cbtrain.errors import UserError, nearest
from cbtrain.eval.report.formatting import fixed, span

if TYPE_CHECKING:
    from rich.console import Console

    from cbtrain.study.evaluation.audit import AuditSettings

SESSIONS = 20

WIDE = 130
"""Columns of a terminal in which copies are described; narrower ones name them."""

WHAT = "test a judge on changed copies of sessions: padded, without an agenda, with orders to the judge …"


def add(commands: Commands, name: str = "audit", summary: str = WHAT) -> None:
    """Add the command ``name``; an older name is not in the list of commands."""
    audit = add_command(
        commands,
        name,
        _audit,
        summary,
        "Settings are key=value, as for `cbtrain judge score`. A fair judge lowers the scores of what was removed, and "
        "no others. docs/judge-audit.md describes each test.",
    )
    audit.summary = audit.summary if name == "audit" else ""
    _add_options(audit)


def _add_options(audit: Parser) -> None:
    add_optional_word(audit, "path", "transcripts in any format, or a run folder (default: the sample)", "corpus.path")
    add_study_arguments(audit)
    add_reading(audit, "format of the transcripts (see `cbtrain corpus --help`)")
    audit.add_argument(
        "--out",
        required=True,
        type=Path,
        help="folder for audit.json and audit.html; an interrupted audit in it continues",
    )
    text = (
        f"original sessions to take, of as many patients as possible (default: {SESSIONS}); an LLM judge rates each "
        "about 16 times, as it is and changed"
    )
    audit.add_argument("--sessions", type=int, default=SESSIONS, metavar="N", help=text)
    audit.add_argument("--seed", type=int, default=0, help="seed of the draw of sessions")
    audit.add_argument("--only", metavar="KIND,…", help="tests of these kinds only, e.g. repeat,length,content")
    text = "the domain of your own rubric that an aspect is about, e.g. agenda=my_item; may be given several times"
    audit.add_argument("--match", action="append", default=[], metavar="ASPECT=DOMAIN", help=text)
    text = "a model that paraphrases and translates: a preset, or a YAML file with a provider's settings"
    audit.add_argument("--writer", help=text)
    audit.add_argument("--writer-model", metavar="NAME", help="its model")
    text = "which of evaluation.judges (default: the first that counts)"
    audit.add_argument("--judge", metavar="NAME", help=text)
    audit.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    add_upload_argument(audit, "transcripts")


def _audit(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.study.evaluation.audit import audit_rater

    for name, least in (("sessions", 1), ("seed", 0)):
        if getattr(parsed, name) < least:
            raise UserError(f"{getattr(parsed, name)} is too small", where=f"--{name}", hint=f"At least {least}.")
    settings = _settings(parsed)
    config = config_of(parsed)
    # What is said on the way must not stand in the JSON.
    console = Console(stderr=parsed.json)
    with continued_by(parsed.command_line, "--out", parsed.out):
        result = audit_rater(config, parsed.out, console, settings)
    if parsed.json:
        print(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False))
        return
    _show(result, console)
    console.print(f"\npage: {parsed.out / 'audit.html'}", highlight=False, markup=False, soft_wrap=True)


def _settings(parsed: argparse.Namespace) -> AuditSettings:
    """Return what is to be tested, and with which writer model. Raises UserError."""
    from cbtrain.config.loading import load_provider_config
    from cbtrain.eval.judge_audit.probes import KINDS
    from cbtrain.study.evaluation.audit import AuditSettings

    kinds = parsed.only.split(",") if parsed.only else list(KINDS)
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"no test {kind!r}", where="--only", hint=nearest(kind, KINDS))
    if parsed.writer_model and not parsed.writer:
        raise UserError("of which API?", where="--writer-model", hint="Name it with --writer.")
    model = [f"model={parsed.writer_model}"] if parsed.writer_model else []
    return AuditSettings(
        sessions=parsed.sessions,
        seed=parsed.seed,
        kinds=[kind for kind in KINDS if kind in kinds],
        match=parsed.match,
        judge=parsed.judge,
        writer=load_provider_config(parsed.writer, model) if parsed.writer else None,
        allow_upload=parsed.allow_upload,
    )


def _show(result: dict[str, Any], console: Console) -> None:
    from rich.markup import escape

    from cbtrain.eval.report.terminal import costs_line

    def say(text: str, style: str | None = None) -> None:
        console.print(text, highlight=False, markup=False, style=style)

    sizes = f"sessions: {result['sessions']:,}, patients: {result['patients']:,}"
    say(f"\nOriginals and changed copies of them ({sizes})\n")
    tests = _table(("test", "verdict", "what was seen"))
    for test in result["tests"]:
        tests.add_row(test["name"], test["verdict"], escape(test["text"]))
    console.print(tests)
    say("")
    probes = _table(("copies", "expected", "n", "found", "95 % interval", "verdict"))
    for probe in (probe for probe in result["probes"] if probe["copies"]):
        for index, finding in enumerate(probe["findings"]):
            label = probe["text" if console.width >= WIDE else "probe"] if index == 0 else ""
            probes.add_row(label, *_cells(finding, probe.get("statuses", {})))
    console.print(probes)
    say("\nfound: points from originals to copies, mean over sessions, or the measure itself where it is no shift")
    say("others: mean of the other domains; interval: t over patients, so it is wide where there are few")
    for note in _notes(result):
        say(f"note: {note}")
    if result["costs"]:
        say(costs_line(result["costs"]))
    say(f"Rated by: {result['rater']['label']}")
    say(result["notice"], "dim")


def _table(columns: tuple[str, ...]) -> Any:
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column in columns:
        number = column in ("n", "found", "95 % interval")
        shown.add_column(column, justify="right" if number else "left", no_wrap=number or column in ("test", "verdict"))
    return shown


def _cells(finding: dict[str, Any], statuses: dict[str, int]) -> list[str]:
    if finding["expected"] == "unratable":
        counts = ", ".join(f"{count} {'rated' if status == 'ok' else status}" for status, count in statuses.items())
        return ["unratable", f"{finding['sessions']}", "", counts, finding["verdict"]]
    expected = f"{finding['measure'].replace('_', ' ')} {finding['expected'] or ''}".strip()
    interval = span(finding["ci_low"], finding["ci_high"], 2)
    shifted = finding["shift"] is not None
    found = fixed(finding["shift"], 2, signed=True) if shifted else fixed(finding["value"], 2)
    return [expected, f"{finding['sessions']}", found, interval, finding["verdict"] or ""]


def _notes(result: dict[str, Any]) -> list[str]:
    """Return what was left out, and how copies were made where that matters."""
    from cbtrain.eval.judge_audit.findings import UNTOLD
    from cbtrain.eval.judge_audit.summary import NOT_TESTED, why_no_copies

    notes = []
    if result["patients"] == 1:
        notes.append("one patient says nothing of others: no verdict on shifts")
    if result["unrated_originals"]:
        notes.append(f"{result['unrated_originals']} of the originals could not be rated and are left out")
    tested = {test["kind"] for test in result["tests"] if test["verdict"] != NOT_TESTED}
    for probe in (probe for probe in result["probes"] if probe["kind"] in tested):
        if why := why_no_copies(probe):
            notes.append(why)
        if count := max((finding["no_room"] for finding in probe["findings"]), default=0):
            notes.append(f"{probe['text']}: sessions left out, too near an end of the scale to move: {count}")
        if probe.get("matched") == []:
            notes.append(f"{probe['text']}: the rubric has no domain for it (--match); the total is shown only")
        if count := (probe.get("ways") or {}).get("structure"):
            notes.append(
                f"{probe['text']}: by structure alone, for want of wording in their language, in sessions: {count}"
            )
    findings = [finding for probe in result["probes"] if probe["copies"] for finding in probe["findings"]]
    reasons = Counter(finding["why"] for finding in findings if finding["verdict"] == UNTOLD and finding["why"])
    if reasons:
        notes.append(f"cannot be told: {'; '.join(f'{count} × {text}' for text, count in reasons.most_common())}")
    notes += [f"not used, {count} times: {what}" for what, count in result["writer_refused"].items()]
    return notes
