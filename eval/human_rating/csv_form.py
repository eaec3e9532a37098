"""A form for raters who prefer a spreadsheet: a CSV to fill in, and a text to read."""

from __future__ import annotations

import csv
import io
import textwrap

from cbtrain import NOTICE
from cbtrain.eval.human_rating.form import UNRATABLE, Form
from cbtrain.eval.rating.csv_table import to_cell
from cbtrain.eval.rating.rubric import Rubric

BEFORE = ("form", "rater", "session")
"""Columns before those of the domains; ``note`` follows them."""

WIDTH = 96


def ratings_csv(form: Form) -> str:
    """Return one row per session, in this rater's order, with an empty cell for each domain."""
    domains = [domain.id for domain in form.rubric.domains]
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*BEFORE, *map(to_cell, domains), "note"])
    for session in form.sessions:
        table.writerow([form.id, "", session.code, *[""] * len(domains), ""])
    return out.getvalue()


def reading_text(form: Form) -> str:
    """Return the text to read: instructions, the scale with every anchor, and the dialogues with numbered turns."""
    rubric = form.rubric
    parts = [
        f"RATING FORM {form.id}\n",
        _fill(NOTICE),
        _fill(CONTENT_NOTICE),
        "HOW TO RATE\n",
        *(_fill(line) for line in instructions(rubric)),
        _fill(
            f"In ratings.csv: your name or initials in the column rater of the first row; in each domain's column a "
            f"whole number from {rubric.minimum} to {rubric.maximum}, or {UNRATABLE}. Leave a cell empty where you "
            "have not rated yet. Save it as CSV (UTF-8) and leave the columns form and session as they are."
        ),
        f"THE SCALE: {rubric.name}\n\n{_fill(rubric.note)}",
    ]
    for domain in rubric.domains:
        points = "".join(_fill(f"{point}  {text}", "  ", "     ") for point, text in sorted(domain.anchors.items()))
        parts.append(f"{domain.name} (column {domain.id})\n{_fill(domain.description)}{points}")
    for number, session in enumerate(form.sessions, 1):
        parts.append(f"{'=' * WIDTH}\nSESSION {session.code}  ({number} of {len(form.sessions)})\n")
        for turn_number, (role, text) in enumerate(session.turns, 1):
            parts.append(f"[{turn_number}] {role.capitalize()}:\n{_fill(text or '(empty turn)', '    ')}")
    return "\n".join(parts)


CONTENT_NOTICE = (
    "What you read is transcripts of simulated or recorded sessions. They may touch on distressing subjects such as "
    "self-harm, loss or violence. You may stop at any time, and leave out a session."
)


def instructions(rubric: Rubric) -> list[str]:
    """Return the instructions for raters, one paragraph each."""
    return [
        "Read a session whole before you rate it. Rate the therapist, on what was said, not on how long or polished "
        "it is, and each domain by its own anchors, not by your impression of the whole.",
        f"Choose the anchor that fits best, from {rubric.minimum} to {rubric.maximum}. Where a domain cannot be rated "
        "from this session, say so: that is not the lowest score.",
        "Sessions come in a random order, and you are not told who or what the therapist was. Please do not try to "
        "find out, and do not talk about sessions with other raters before all of you are done.",
    ]


def _fill(text: str, indent: str = "", hanging: str | None = None) -> str:
    """Return ``text`` in lines of at most ``WIDTH`` columns, its own line breaks kept; ends with a line break."""
    wrapper = textwrap.TextWrapper(
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(map(wrapper.fill, text.splitlines())) + "\n"
