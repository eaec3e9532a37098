"""``cbtrain corpus check``: irregularities by kind with examples, or one session before and after cleaning."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cbtrain.cli.corpus_reading import config_of, on_bad_of, reading, source_of
from cbtrain.cli.exit_codes import DONE, FOUND
from cbtrain.console import counting
from cbtrain.errors import UserError, nearest

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from cbtrain.transcripts.checking import Finding
    from cbtrain.transcripts.reading import CorpusSource

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def check(parsed: argparse.Namespace) -> int:
    from cbtrain.transcripts.checking import KINDS

    for kind in parsed.kind:
        if kind not in KINDS:
            raise UserError(f"unknown kind {kind!r}", where="--kind", hint=nearest(kind, KINDS))
    if parsed.explain:
        return _explain(parsed)
    return _check_json(parsed) if parsed.json else _check_text(parsed)


def _findings(
    parsed: argparse.Namespace, source: CorpusSource, tally: dict[str, Any], console: Console | None = None
) -> Iterator[Any]:
    """Yield all findings, and add their counts, sessions and whether one is an error to ``tally``."""
    from cbtrain.transcripts.checking import Checker, Finding
    from cbtrain.transcripts.reading import no_sessions

    bad: list[UserError] = []
    skipped: list[str] = []
    policy, profiles = config_of(parsed).corpus.cleaning, source.profiles(bad.append)
    checker = Checker(profiles, policy, labels=source.given_labels)

    def unreadable() -> Iterator[Finding]:
        while bad:
            error = bad.pop(0)
            tally["unreadable"] += 1
            skipped.append(str(error))
            yield Finding("unreadable", str(error.where or source.name), "", None, error.what)

    def all_of_them() -> Iterator[Finding]:
        for session in counting(source.sessions(bad.append), "Checking", console):
            yield from unreadable()
            yield from checker.add(session)
        yield from unreadable()
        if not checker.sessions:
            raise no_sessions(source, skipped)
        yield from checker.finish()

    last: dict[str, str] = {}
    for finding in all_of_them():
        row = tally["kinds"].setdefault(finding.kind, {"severity": finding.severity, "findings": 0, "sessions": 0})
        row["findings"] += 1
        # Findings of one session stand together.
        row["sessions"] += bool(finding.session) and last.get(finding.kind) != finding.session
        last[finding.kind] = finding.session
        if not parsed.kind or finding.kind in parsed.kind:
            yield finding
    tally["sessions"] = checker.sessions
    if checker.pairs:
        tally["pairs"] = checker.pairs


def _has_error(tally: dict[str, Any]) -> bool:
    return any(row["severity"] == "error" for row in tally["kinds"].values())


def _check_json(parsed: argparse.Namespace) -> int:
    source = source_of(parsed)
    tally: dict[str, Any] = {"sessions": 0, "unreadable": 0, "kinds": {}}
    # Written as it comes: a hundred thousand sessions may have as many findings.
    findings = _findings(parsed, source, tally)
    head = next(findings, None)
    print(f'{{"corpus": {json.dumps(source.name)}, "format": "{source.format}", "findings": [', end="")
    failure = None
    try:
        for index, finding in enumerate(_chain(head, findings)):
            print(("," if index else "") + "\n" + json.dumps(finding.as_dict(), ensure_ascii=False), end="")
    except UserError as error:  # what is printed stays whole JSON
        failure = error
    print("],")
    print(json.dumps(tally, indent=2)[1:])
    if failure:
        raise failure
    return FOUND if _has_error(tally) else DONE


def _chain(head: Any, rest: Iterable[Any]) -> Iterator[Any]:
    if head is not None:
        yield head
        yield from rest


def _check_text(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from cbtrain.transcripts.checking import KINDS

    console, source = Console(), source_of(parsed)
    tally: dict[str, Any] = {"sessions": 0, "unreadable": 0, "kinds": {}}
    examples: dict[str, list[Finding]] = {}
    for finding in _findings(parsed, source, tally, console):
        if parsed.all:
            console.print(_line(finding, finding.where), soft_wrap=True)
        elif len(examples.setdefault(finding.kind, [])) < parsed.examples:
            examples[finding.kind].append(finding)
    what = "pairs of answers" if "pairs" in tally else "sessions"
    console.print(
        f"{source.name} ({source.format}): {tally['sessions']:,} {what} checked",
        highlight=False,
        markup=False,
    )
    for kind in sorted(tally["kinds"], key=list(KINDS).index):
        if not parsed.kind or kind in parsed.kind:
            _print_kind(kind, tally["kinds"][kind], examples.get(kind, []), source, console)
    not_found = ", ".join(kind for kind in KINDS if kind not in tally["kinds"])
    console.print(f"\nNot found: {not_found}.", highlight=False)
    if examples:
        console.print("--all lists every finding, --kind KIND those of one kind.", highlight=False)
    console.print(
        "To see how cleaning changes a session: `cbtrain corpus check PATH --explain COURSE/NUMBER`. Patterns cannot "
        "find names or stories: a corpus without findings of personal data may still identify people.",
        style="dim",
    )
    return FOUND if _has_error(tally) else DONE


def _print_kind(
    kind: str, row: dict[str, Any], examples: Sequence[Finding], source: CorpusSource, console: Console
) -> None:
    """Print how often ``kind`` was found, what it means, and ``examples`` with their place inside the corpus."""
    from rich.padding import Padding
    from rich.text import Text

    from cbtrain.eval.report.formatting import counted
    from cbtrain.transcripts.checking import KINDS

    severity, meaning = KINDS[kind]
    counts = counted(row["findings"], "finding")
    if row["sessions"]:
        counts += f" in {counted(row['sessions'], 'session')}"
    console.print(Text.assemble("\n", (f"{severity} {kind}", STYLES[severity]), f": {counts}"))
    console.print(Padding(Text(meaning, "dim"), (0, 0, 0, 2), expand=False))
    for finding in examples:
        where = finding.where.removeprefix(source.name).lstrip("/") or finding.where
        if where.startswith(":"):  # a line of the only file
            where = finding.where
        console.print(Padding(_line(finding, where, severity=False), (0, 0, 0, 2), expand=False))
    if examples and row["findings"] > len(examples):
        console.print(Text(f"  … {row['findings'] - len(examples):,} more", "dim"))


def _line(finding: Finding, where: str, *, severity: bool = True) -> Text:
    """Return a finding on one line: place and detail, with its severity and kind if asked."""
    from rich.text import Text

    turn = f", turn {finding.turn}" if finding.turn else ""
    head = (finding.severity, STYLES[finding.severity]), f" {finding.kind}  "
    return Text.assemble(*(head if severity else ()), f"{where}{turn}", (f"  {finding.detail}", "dim"))


def _explain(parsed: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.text import Text

    from cbtrain.transcripts.cleaning import CHANGES, CleaningReport, clean_session, fingerprint_of
    from cbtrain.transcripts.explain import explain

    source, console, policy = source_of(parsed), Console(), config_of(parsed).corpus.cleaning
    profiles = source.profiles(on_bad_of(parsed))
    session_ids: list[str] = []
    seen: dict[bytes, str] = {}
    with reading(source, parsed) as sessions:
        for session in sessions:
            session_ids.append(session.id)
            if session.id == parsed.explain:
                break
            profile = profiles.get(session.course)
            cleaned = clean_session(session, policy, profile, CleaningReport(), source.given_labels)
            seen.setdefault(fingerprint_of(cleaned), session.id)
        else:
            raise UserError(
                f"no session {parsed.explain!r}", where=source.name, hint=_nearest_session(parsed.explain, session_ids)
            )
    explained = explain(session, policy, profiles.get(session.course), seen, source.given_labels)
    if parsed.json:
        print(json.dumps(asdict(explained), indent=2, ensure_ascii=False))
        return 0
    console.print(Text(f"{explained.session}  {explained.where}", "bold"), soft_wrap=True)
    for change in explained.changes:
        turn = f"turn {change.turn + 1}: " if change.turn is not None else ""
        note = f" ({change.note})" if change.note else ""
        console.print(Text(f"  {turn}{CHANGES[change.kind]}{note}"), soft_wrap=True)
    if not explained.changes:
        console.print("  Nothing to clean: it is the same after cleaning.")
    if explained.preamble and (parsed.full or not explained.lines):
        console.print(Text(f"\n- before the first label\n{explained.preamble}", "red"))
    same = 0
    signs = {"same": (" ", "dim"), "before": ("-", "red"), "after": ("+", "green")}
    for line in explained.lines:
        if line.side == "same" and not parsed.full:
            same += 1
            continue
        if same:
            console.print(f"  … {same} unchanged turn{'s' * (same != 1)}", style="dim")
            same = 0
        sign, style = signs[line.side]
        text = line.turn.text if parsed.full else _shortened(line.turn.text)
        console.print(Text(f"{sign} {line.number}. {line.turn.role}: {text}", style))
    if same:
        console.print(f"  … {same} unchanged turn{'s' * (same != 1)}", style="dim")
    return 0


def _nearest_session(wanted: str, session_ids: list[str]) -> str:
    hint = nearest(wanted, session_ids)
    return hint if len(session_ids) < 12 or hint.startswith("Did") else f"Session ids look like {session_ids[0]!r}."


def _shortened(text: str, length: int = 400) -> str:
    if len(text) <= length:
        return text
    return f"{text[: length // 2].rstrip()} [… {len(text) - length:,} characters …] {text[-length // 2 :].lstrip()}"
