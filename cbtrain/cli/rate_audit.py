"""``cbtrain rate audit``: test a rater on changed copies of sessions."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbtrain.cli.parser import Commands, add_command, add_study_arguments, add_upload_argument, continued_by
from cbtrain.errors import UserError
from cbtrain.eval.report.formatting import fixed, span

if TYPE_CHECKING:
    from rich.console import Console

SESSIONS = 20

WIDE = 116
"""Columns of a terminal in which copies are described; narrower ones name them."""


def add(commands: Commands) -> None:
    audit = add_command(
        commands,
        "rate audit",
        _audit,
        "test a rater on changed copies of sessions: padded, without an agenda, contradicting, empty …",
        "Settings are key=value, as for `cbtrain rate`. A fair rater lowers the scores of what was "
        "removed, and no others.",
    )
    add_study_arguments(audit)
    audit.add_argument(
        "--out", required=True, type=Path, help="folder for audit.json; an interrupted audit in it continues"
    )
    text = f"original sessions to take, of as many patients as possible (default: {SESSIONS}); each is rated nine times"
    audit.add_argument("--sessions", type=int, default=SESSIONS, metavar="N", help=text)
    audit.add_argument("--seed", type=int, default=0, help="seed of the draw of sessions and of the bootstrap")
    audit.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    add_upload_argument(audit, "transcripts")


def _audit(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.config.loading import load_config
    from cbtrain.study.evaluation.audit import audit_rater

    for name, least in (("sessions", 1), ("seed", 0)):
        if getattr(parsed, name) < least:
            raise UserError(f"{getattr(parsed, name)} is too small", where=f"--{name}", hint=f"At least {least}.")
    config = load_config(parsed.config, parsed.settings)
    # What is said on the way must not stand in the JSON.
    console = Console(stderr=parsed.json)
    sizes = {"sessions": parsed.sessions, "seed": parsed.seed}
    with continued_by(parsed.command_line, "--out", parsed.out):
        result = audit_rater(config, parsed.out, console, **sizes, allow_upload=parsed.allow_upload)
    if parsed.json:
        print(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False))
        return
    _show(result, console)
    console.print(f"\naudit: {parsed.out / 'audit.json'}", highlight=False, markup=False, soft_wrap=True)


def _show(result: dict[str, Any], console: Console) -> None:
    from rich import box
    from rich.table import Table

    from cbtrain.eval.judge_audit.findings import FEWEST_PATIENTS
    from cbtrain.eval.report.terminal import costs_line

    def say(text: str, style: str | None = None) -> None:
        console.print(text, highlight=False, markup=False, style=style)

    sizes = f"sessions: {result['sessions']:,}, patients: {result['patients']:,}"
    say(f"\nOriginals and changed copies of them ({sizes})\n")
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for index, column in enumerate(("copies", "expected", "n", "shift", "95 % interval", "verdict")):
        shown.add_column(column, justify="right" if index in (2, 3, 4) else "left", no_wrap=index > 1)
    for probe in result["probes"]:
        for index, finding in enumerate(probe["findings"]):
            label = probe["text" if console.width >= WIDE else "probe"] if index == 0 else ""
            shown.add_row(label, *_cells(finding, probe["statuses"]))
    console.print(shown)
    say("\nshift: points from originals to copies, mean over sessions; others: mean of the other domains")
    verdicts = [finding["verdict"] for probe in result["probes"] for finding in probe["findings"] if finding["verdict"]]
    say(
        ", ".join(
            f"{verdicts.count(verdict)} {verdict}" for verdict in ("as expected", "not as expected", "cannot be told")
        )
    )
    if result["patients"] < FEWEST_PATIENTS:
        say(f"note: no interval, and no verdict on shifts, from fewer than {FEWEST_PATIENTS} patients")
    if result["unrated_originals"]:
        say(f"note: {result['unrated_originals']} of the originals could not be rated and are left out")
    for probe in result["probes"]:
        if probe["nothing_to_change"]:
            say(f"note: {probe['text']}: nothing to change in {probe['nothing_to_change']} sessions")
    if result["costs"]:
        say(costs_line(result["costs"]))
    say(f"Rated by: {result['rater']['label']}")
    say(result["notice"], "dim")


def _cells(finding: dict[str, Any], statuses: dict[str, int]) -> list[str]:
    if finding["expected"] == "unratable":
        counts = ", ".join(f"{count} {'rated' if status == 'ok' else status}" for status, count in statuses.items())
        return ["unratable", f"{finding['sessions']}", "", counts, finding["verdict"]]
    expected = f"{finding['measure'].replace('_', ' ')} {finding['expected'] or ''}".strip()
    interval = span(finding["ci_low"], finding["ci_high"], 2)
    shift = fixed(finding["shift"], 2, signed=True)
    return [expected, f"{finding['sessions']}", shift, interval, finding["verdict"] or ""]
