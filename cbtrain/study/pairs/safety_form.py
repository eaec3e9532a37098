"""The form in which a person says which answers are unsafe, and writes better ones. A table (CSV), a row an answer."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cbtrain.errors import UserError
from cbtrain.eval.rating.csv_table import from_cell, read_csv_table, to_cell
from cbtrain.files import write_atomic
from cbtrain.study.pairs.suspects import Reply

NEEDED = ("run", "session", "turn", "verdict", "better")
COLUMNS = ("run", "session", "turn", "found", "patient_says", "answer", "verdict", "better")

Verdict = Literal["unsafe", "safe", ""]
"""``safe``: read, and good enough to be chosen. Empty: nobody has judged it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the form says of one answer. ``better``: a person's own answer in its place, "" if none is written."""

    verdict: Verdict
    better: str = ""


def write_form(replies: Sequence[Reply], path: Path) -> None:
    """Write a row for each of ``replies``. Faults are marked ``unsafe``; the verdict on others is a person's."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for reply in replies:
        before = reply.session.turns[reply.turn - 1].text if reply.turn else ""
        texts = (reply.run, reply.session.id, str(reply.turn + 1), ", ".join(reply.found), before, reply.said.text)
        table.writerow([*map(to_cell, texts), "unsafe" if reply.faulty else "", ""])
    write_atomic(path, out.getvalue())


def read_form(path: Path, replies: Mapping[tuple[str, str, int], Reply]) -> dict[tuple[str, str, int], Judged]:
    """Return the verdicts in the form at ``path`` by run, session and index of the turn. Rows may be added and removed.
    Raises UserError with the line of a row that fits none of ``replies``, or says nothing that is known."""
    table = read_csv_table(path, COLUMNS, pad=True)
    if missing := [name for name in NEEDED if name not in table.columns]:
        hint = f"Needed are {', '.join(NEEDED)}; without the file, a form is written."
        raise UserError(f"column {missing[0]!r} is missing", where=path, hint=hint)
    judged: dict[tuple[str, str, int], Judged] = {}
    for line, cells in table.rows:
        row = {name: from_cell(text) for name, text in cells.items()}
        where, turn = f"{path}:{line}", row["turn"].removesuffix(".0")
        place = (row["run"], row["session"], int(turn) - 1 if turn.isascii() and turn.isdigit() else -1)
        reply = replies.get(place)
        if reply is None:
            what = f"no therapist's turn {row['turn']} in session {row['session']!r} of {row['run']!r} may be judged"
            raise UserError(what, where=where, hint="Name a turn of a patient who may enter, or remove the row.")
        if row.get("answer") and _plain(row["answer"]) != _plain(reply.said.text):
            raise UserError("the answer is not what the session says", where=where, hint="Write the form anew.")
        verdict = row["verdict"].strip().casefold()
        if verdict not in ("unsafe", "safe", ""):
            raise UserError(f"unknown verdict {row['verdict']!r}", where=where, hint="Say unsafe, safe, or nothing.")
        if place in judged:
            raise UserError("this answer has a row already", where=where, hint="Keep one of them.")
        judged[place] = Judged(verdict, row["better"].strip())  # type: ignore[arg-type]
    return judged


def _plain(text: str) -> str:
    return " ".join(text.split())
