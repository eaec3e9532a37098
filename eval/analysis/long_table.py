"""Ratings as a long table, one row for each score of an item, for other programs; and its codebook."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cbtrain
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.rating.csv_table import to_cell
from cbtrain.eval.rating.keying import AS_GIVEN
from cbtrain.eval.rating.rubric import Domain, Rubric
from cbtrain.files import write_atomic
from cbtrain.patients.case import COLUMNS
from cbtrain.transcripts.types import phase_of

ABOUT = {
    "session_id": "the session that was rated",
    "arm": "the therapist of the session",
    "base": "base model of the arm, by its name or a file of arms",
    "variant": "what was done to the base: untuned, tuned, placebo, or another word",
    "patient": "the patient; sessions of one patient are not independent",
    "seed": "sessions of a patient with different arms and one seed (and session and simulator) are a pair",
    "session": "number of the session in the course of the patient, from 1",
    "phase": "phase of therapy that the number falls into",
    "simulator": "who played the patient, if several did",
    **dict.fromkeys(COLUMNS, "of the patient"),
    "judge": "who rated: the name of a model or person; judges differ in severity",
    "repeat": "number of the rating of this session by this judge, from 0",
    "status": "ok, or why there is no score: invalid, refused, truncated, unratable, error",
    "item": "id of the item that was scored; total where the table had totals alone",
    "subscale": "part of the instrument that the item belongs to",
    "weight": "how often the item counts in the total",
    "score": "as the rater gave it; empty if missing",
    "keyed": "the score, turned round if the item is reversed: more is better",
    "total": "weighted sum of the keyed scores of this rating; empty if one is missing; the same in all its rows",
}
"""The columns in order, and what they say."""

MOST_LEVELS = 12
CODEBOOK = ("part", "name", "title", "values", "missing", "reversed", "weight", "subscale", "description", "anchors")


def write_long_table(ratings: Ratings, rubric: Rubric | None, path: Path) -> list[Path]:
    """Write the long table of ``ratings`` to ``path`` and its codebook beside it, as CSV and Markdown; return the three
    paths. ``rubric``: the instrument, if it is known. UTF-8, commas, decimal points, empty cells for missing values."""
    rows = list(_rows(ratings, rubric))
    columns = {name: [row[place] for row in rows] for place, name in enumerate(ABOUT)}
    codebook = [*_of_columns(columns), *_of_items(ratings, rubric)]
    paths = [path, path.with_suffix(".codebook.csv"), path.with_suffix(".codebook.md")]
    write_atomic(path, _csv(tuple(ABOUT), rows))
    write_atomic(paths[1], _csv(CODEBOOK, [[row.get(name, "") for name in CODEBOOK] for row in codebook]))
    write_atomic(paths[2], _markdown(path.name, codebook, rubric))
    return paths


def _rows(ratings: Ratings, rubric: Rubric | None) -> Iterator[list[str]]:
    keying = rubric.keying if rubric and ratings.parts else AS_GIVEN
    subscale_of = {item: name for name, items in ratings.subscales.items() for item in items}
    weights = ratings.weights or (1.0,) * len(ratings.item_names)
    totals = ratings.total
    for row in range(len(ratings)):
        arm, patient, number = ratings.arms[str(ratings.arm[row])], str(ratings.patient[row]), int(ratings.number[row])
        of_patient = [ratings.moderators.get(column, {}).get(patient, "") for column in COLUMNS]
        before = [ratings.session_id(row), arm.name, arm.base, arm.variant, patient, str(ratings.seed[row])]
        before += [str(number or ""), phase_of(number) if number else "", str(ratings.simulator[row]), *of_patient]
        before += [str(ratings.judge[row]), str(ratings.repeat[row]), str(ratings.status[row])]
        for item, weight, keyed in zip(ratings.item_names, weights, map(float, ratings.items[row]), strict=True):
            scores = map(_number, (weight, keying.keyed(item, keyed), keyed, float(totals[row])))
            yield [*before, item, subscale_of.get(item, ""), *scores]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.12g}"


def _csv(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text; cells that a spreadsheet would run begin with an apostrophe, as in every table here."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(columns)
    table.writerows([cell if _is_number(cell) else to_cell(cell) for cell in row] for row in rows)
    return out.getvalue()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _of_columns(columns: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    for name, description in ABOUT.items():
        cells = [cell for cell in columns[name] if cell]
        missing = str(len(columns[name]) - len(cells))
        yield {"part": "column", "name": name, "values": _values(cells), "missing": missing, "description": description}


def _values(cells: Sequence[str]) -> str:
    """Return the range of numbers, or the first levels of anything else."""
    if not cells:
        return ""
    levels = list(dict.fromkeys(cells))
    if all(map(_is_number, levels)) and len(levels) > 1:
        return f"{min(levels, key=float)} to {max(levels, key=float)}"
    more = [f"and {len(levels) - MOST_LEVELS} more"] if len(levels) > MOST_LEVELS else []
    return ", ".join([*levels[:MOST_LEVELS], *more])


def _of_items(ratings: Ratings, rubric: Rubric | None) -> Iterator[dict[str, str]]:
    known: dict[str, Domain] = {domain.id: domain for domain in rubric.domains} if rubric else {}
    scale = ratings.scale
    steps = f" in steps of {scale.step:g}" if scale and scale.step != 1 else ""
    values = f"{scale.low:g} to {scale.high:g}{steps}" if scale else "not known"
    for place, item in enumerate(ratings.item_names):
        scores = ratings.items[:, place]
        row = {"part": "item", "name": item, "values": values, "missing": str(sum(map(math.isnan, scores)))}
        if domain := known.get(item):
            anchors = "; ".join(f"{point:g} = {text}" for point, text in sorted(domain.anchors.items()))
            row |= {"title": domain.name, "description": domain.description, "anchors": anchors}
            row |= {"reversed": "yes" if domain.reversed else "no", "weight": f"{domain.weight:g}"}
            row |= {"subscale": domain.subscale}
        yield row


def _markdown(name: str, codebook: Sequence[Mapping[str, str]], rubric: Rubric | None) -> str:
    columns, items = ([row for row in codebook if row["part"] == part] for part in ("column", "item"))
    parts = [f"# Codebook of {_escaped(name)}", "One row for each score of an item. UTF-8, commas, decimal points; an "
             "empty cell is a missing value. A text that begins with `=`, `+`, `-` or `@` has an apostrophe before it. "
             f"Written by cbtrain {cbtrain.__version__}. {cbtrain.NOTICE}"]  # fmt: skip
    parts += ["## Columns", _table(columns, ("name", "description", "values", "missing"))]
    parts += ["## Items"]
    if rubric:
        parts += [_escaped(" ".join(filter(None, (f"{rubric.name}.", rubric.note, rubric.source))))]
    else:
        parts += ["The instrument is not known here."]
    parts += [_table(items, CODEBOOK[1:])]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    lines = [columns, ["---"] * len(columns), *([_escaped(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
