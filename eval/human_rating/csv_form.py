"""A form for raters who prefer a spreadsheet: a CSV to fill in, and a text to read."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence

from cbtrain import NOTICE
from cbtrain.eval.human_rating.form import UNRATABLE, BlindSession, Form, Opinion
from cbtrain.eval.human_rating.instructions import CONTENT_NOTICE, instructions
from cbtrain.eval.rating.csv_table import to_cell
from cbtrain.eval.rating.rubric import Domain, Rubric

BEFORE = ("form", "rater", "session")
"""Columns before those of the domains; ``note`` follows them."""

NOT_ASKED = "agreed"
"""In the cell of a domain that is not to be rated in this session, since raters agree on it."""

WIDTH = 96


def ratings_csv(form: Form) -> str:
    """Return one row per session, the training first, in this rater's order, with an empty cell for each domain that is
    to be rated."""
    domains = form.rubric.ids
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*BEFORE, *map(to_cell, domains), "note"])
    for session in form.training:
        table.writerow([form.id, "", session.code, *[""] * len(domains), ""])
    for session in form.sessions:
        cells = ["" if domain in (session.domains or domains) else NOT_ASKED for domain in domains]
        table.writerow([form.id, "", session.code, *cells, ""])
    return out.getvalue()


def reading_text(form: Form) -> str:
    """Return the text to read: instructions, the scale with every anchor, and the dialogues with numbered turns."""
    rubric = form.rubric
    point = f"a whole number from {rubric.scale_words}" if _whole_points(rubric) else f"a point ({rubric.scale_words})"
    parts = [
        f"RATING FORM {form.id}\n",
        _fill(NOTICE),
        _fill(CONTENT_NOTICE),
        "HOW TO RATE\n",
        *(_fill(line) for line in instructions(form)),
        _fill(
            f"In ratings.csv: your name or initials in the column rater of the first row; in each domain's column "
            f"{point}, or {UNRATABLE}. Leave a cell empty where you "
            "have not rated yet. Save it as CSV (UTF-8) and leave the columns form and session as they are."
        ),
    ]
    if form.training:
        parts.append(
            _fill(
                "Training: rate its sessions in ratings.csv first. Only then open training-answers.txt, which has the "
                "agreed scores, and do not change what you have written."
            )
        )
    parts.append(f"THE SCALE: {rubric.name}\n\n{_fill(rubric.note)}")
    subscale = ""
    for domain in rubric.domains:
        if domain.subscale != subscale:
            subscale = domain.subscale
            parts.append(f"--- {subscale or 'Other domains'} ---\n")
        parts.append(_domain(domain))
    for number, session in enumerate(form.training, 1):
        parts += _session(session, f"TRAINING SESSION {session.code}  ({number} of {len(form.training)})", rubric)
    for number, session in enumerate(form.sessions, 1):
        title = f"SESSION {session.code}  ({number} of {len(form.sessions)})"
        parts += _session(session, title, rubric, asked=form.settles)
    return "\n".join(parts)


def training_text(form: Form) -> str:
    """Return the agreed scores of the training sessions, with reasons, to open after they were rated."""
    parts = [
        f"AGREED SCORES OF THE TRAINING SESSIONS, FORM {form.id}\n",
        _fill("Open this only when you have rated these sessions. Compare domain by domain, and read the reasons."),
    ]
    names = {domain.id: domain.name for domain in form.rubric.domains}
    for session in form.training:
        parts.append(f"{'=' * WIDTH}\nSESSION {session.code}\n")
        parts += [_fill(session.note)] if session.note else []
        lines = [f"{names[domain]}: {opinion_words(given[0])}" for domain, given in session.given.items()]
        parts.append("".join(_fill(line, hanging="    ") for line in lines))
    return "\n".join(parts)


def point_words(score: float | None) -> str:
    return "cannot be rated" if score is None else f"{score:g}"


def opinion_words(opinion: Opinion) -> str:
    """Return ``4 (turns 2, 7). Because …``."""
    turns = ", ".join(str(index + 1) for index in opinion.evidence)
    where = f" ({'turn' if len(opinion.evidence) == 1 else 'turns'} {turns})" if turns else ""
    reason = f". {opinion.reason}" if opinion.reason else ""
    return f"{point_words(opinion.score)}{where}{reason}"


def _whole_points(rubric: Rubric) -> bool:
    return all(isinstance(point, int) for point in rubric.points) and rubric.step == 1


def _domain(domain: Domain) -> str:
    points = "".join(_fill(f"{point:g}  {text}", "  ", "     ") for point, text in sorted(domain.anchors.items()))
    description = _fill(domain.description) if domain.description else ""
    return f"{domain.name} (column {domain.id})\n{description}{points}"


def _session(session: BlindSession, title: str, rubric: Rubric, *, asked: bool = False) -> list[str]:
    parts = [f"{'=' * WIDTH}\n{title}\n"]
    if asked:
        names = {domain.id: domain.name for domain in rubric.domains}
        lines = [f"Rate here: {names[domain]}{_given(session.given.get(domain, ()))}" for domain in session.domains]
        parts.append("".join(_fill(line, hanging="    ") for line in lines))
    for number, (role, text) in enumerate(session.turns, 1):
        parts.append(f"[{number}] {role.capitalize()}:\n{_fill(text or '(empty turn)', '    ')}")
    return parts


def _given(opinions: Sequence[Opinion]) -> str:
    return f". Said so far: {'; '.join(map(opinion_words, opinions))}" if opinions else ""


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
