"""``cbtrain patients audit``: do simulated patients behave like patients."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbtrain.cli.parser import (
    Commands,
    add_command,
    add_optional_word,
    add_study_arguments,
    add_upload_argument,
    continued_by,
)
from cbtrain.errors import UserError
from cbtrain.eval.report.formatting import fixed, p_value, share, span

if TYPE_CHECKING:
    from rich.console import Console

SESSIONS = 20


def add(commands: Commands) -> None:
    audit = add_command(
        commands,
        "audit",
        _audit,
        "measure simulated patients, beside other sessions: turns, questions, agreement, echo, likeness, drift",
        "No judge is needed. With --judge, a model reads dialogues for facts of the patients' cases; settings are "
        "key=value, as for `cbtrain judge score`.",
    )
    add_optional_word(audit, "path", "run folder, or transcripts")
    add_study_arguments(audit)
    text = "sessions to compare with: a run, the 2024 study's simulations, or transcripts of people (repeatable)"
    audit.add_argument("--against", action="append", type=Path, default=[], metavar="PATH", help=text)
    text = "folder for patients_audit.json and patients_audit.html (default: patients_audit/ in a run folder)"
    audit.add_argument("--out", type=Path, help=text)
    text = "have the judge of evaluation.judging.provider look for facts of the patients' cases"
    audit.add_argument("--judge", action="store_true", help=text)
    text = f"dialogues that the judge reads, of as many patients as possible (default: {SESSIONS})"
    audit.add_argument("--sessions", type=int, default=SESSIONS, metavar="N", help=text)
    audit.add_argument("--seed", type=int, default=0, help="seed of permutations, bootstrap and draw")
    audit.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    add_upload_argument(audit, "transcripts")


def _audit(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.config.loading import load_config
    from cbtrain.study.evaluation.patient_facts import FactsJudge
    from cbtrain.study.evaluation.patients_audit import audit_patients, default_folder

    if parsed.path is None:
        raise UserError("no sessions named", where="patients audit", hint="Name a run folder, or transcripts.")
    for name, least in (("sessions", 1), ("seed", 0)):
        if getattr(parsed, name) < least:
            raise UserError(f"{getattr(parsed, name)} is too small", where=f"--{name}", hint=f"At least {least}.")
    if not parsed.judge and (parsed.settings or parsed.config):
        raise UserError("settings are the judge's", where="patients audit", hint="Add --judge, or leave them out.")
    judge = None
    if parsed.judge:
        config = load_config(parsed.config, parsed.settings)
        judge = FactsJudge(config, parsed.sessions, parsed.allow_upload)
    console, path = Console(stderr=parsed.json), Path(parsed.path).expanduser()
    folder = parsed.out or default_folder(path)
    with continued_by(parsed.command_line, "--out", folder) if folder else nullcontext():
        found = audit_patients(path, parsed.against, folder, console, judge=judge, seed=parsed.seed)
    if parsed.json:
        print(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))
        return
    _show(found, console)
    where = f"page: {folder / 'patients_audit.html'}" if folder else "nothing was written: name a folder with --out"
    console.print(f"\n{where}", highlight=False, markup=False, soft_wrap=True)


def _show(found: dict[str, Any], console: Console) -> None:
    from rich import box
    from rich.table import Table

    def say(text: str, style: str | None = None) -> None:
        console.print(text, highlight=False, markup=False, style=style)

    sets = found["sets"]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("mean over patients")
    for one in sets:
        table.add_column(one["name"], justify="right")
    for name in found["measures"]:
        table.add_row(name.replace("_", " "), *(fixed(one["measures"][name]["mean"], 3) for one in sets))
    for name in ("within", "between", "recognised"):
        label = {"within": "alike, one patient", "between": "alike, two patients"}.get(name, name)
        table.add_row(label, *(fixed(one["resemblance"][name], 3) for one in sets))
    for kind in sets[0]["drift"]:
        table.add_row(kind.replace("_", " "), *(share(one["drift"][kind] / one["turns"]) for one in sets))
    table.add_row("patients, sessions", *(f"{one['patients']:,}, {one['sessions']:,}" for one in sets))
    console.print()
    console.print(table)
    for one in sets:
        endings = ", ".join(f"{name} {count:,}" for name, count in one["endings"].items())
        lives = [f"{curve['half_life']} {curve['arm']}".strip() for curve in one["agreement"] if curve["half_life"]]
        say(f"{one['name']}: endings: {endings}; half-life of reserve in answers: {', '.join(lives) or 'n/a'}")
        if one["summaries_left_out"]:
            say(f"note: {one['summaries_left_out']:,} summaries of an earlier session in first turns are not counted")
    for comparison in found["comparisons"]:
        _show_comparison(comparison, sets[0]["name"], console)
    facts = found["facts"]
    if facts and facts.get("why_not"):
        say(f"note: {facts['why_not']}")
    elif facts:
        interval = f"{share(facts['ci_low'])} to {share(facts['ci_high'])}"
        say(f"\nfacts recovered: {share(facts['share'])} ({interval}), {len(facts['contradictions'])} contradictions")
        if facts["failed"]:
            say(f"note: {facts['failed']} dialogues could not be read: {facts['problems'][0]}")
    say(f"\n{found['cannot']}")
    say(found["notice"], "dim")


def _show_comparison(comparison: dict[str, Any], name: str, console: Console) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(f"{name} minus {comparison['with']}")
    for column in ("difference", "95 % interval", "in SDs"):
        table.add_column(column, justify="right")
    for row in comparison["differences"]:
        interval = span(row["ci_low"], row["ci_high"], 3)
        numbers = (fixed(row["difference"], 3, signed=True), interval, fixed(row["standardized"], 2, signed=True))
        table.add_row(row["measure"].replace("_", " "), *numbers)
    console.print()
    console.print(table)
    test = comparison["all_at_once"]
    p = f"p {p_value(test['p'])}" if test["p"] is not None else "no test: three patients in each set are needed"
    text = f"all at once: energy distance {fixed(test['distance'])}, {p}"
    console.print(text, highlight=False, markup=False)
    if shared := comparison["patients_of_both"]:
        text = f"note: in both sets, and compared as if they were different people: {', '.join(shared)}"
        console.print(text, highlight=False, markup=False)
