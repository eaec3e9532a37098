"""``cbtrain analyze --protocol tahir2025``: read the 2025 study's scores and patients, and analyse them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cbtrain
from cbtrain.errors import UserError
from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.plain_values import SCHEMA, plain
from cbtrain.eval.analysis.tahir2025.analyze import study_analysis
from cbtrain.eval.analysis.tahir2025.moderators import PATIENTS, levels_of
from cbtrain.eval.analysis.tahir2025.scores import read_study_scores

SCORES = ("scores.csv", "scores/scores.csv")
"""Where the table lies in the study's folder."""

JUDGE = "the author's judge"


def analyze_tahir2025(paths: Sequence[Path], patients: Path | None, *, draws: int, seed: int) -> dict[str, Any]:
    """Return the analysis of the table that ``paths`` name, or of the one in that folder, under its keys in JSON; NaN
    becomes None.

    ``patients``: the study's file of patients (default: beside the table or a folder above it; without one there are
    no moderators, and a note says so). Raises UserError on more than one path, and on a table that does not fit.
    """
    if len(paths) > 1:
        hint = "Its six arms are in one table: name that alone."
        raise UserError("the 2025 study's analysis reads one table", where=paths[1], hint=hint)
    path = _table(paths[0])
    scores = read_study_scores(path)
    file = patients or _patients_near(path)
    levels, notes = None, []
    if file is None:
        notes.append(f"no {PATIENTS} beside the table: nothing is said of kinds of patients (--metadata FILE names it)")
    else:
        levels = levels_of(file, scores.patients, lambda line: None)  # symptoms and archetypes are not guessed
        notes.append(f"kinds of patients are those of {file}")
    try:
        results = study_analysis(scores, levels, draws=draws, seed=seed)
    except ValueError as error:
        raise UserError(str(error), where=path, hint="Name scores that differ.") from None
    head = {
        "schema": SCHEMA,
        "protocol": "tahir2025",
        "cbtrain_version": cbtrain.__version__,
        "notice": cbtrain.NOTICE,
        "ratings": len(scores.patients) * len(scores.arms),
        "patients": len(scores.patients),
        "judges": [JUDGE],
        "arms": [_arm(name) for name in scores.arms],
        "notes": notes,
    }
    found: dict[str, Any] = plain({**head, **results})
    return found


def _table(path: Path) -> Path:
    """Return the table that ``path`` names, or the one in that folder. Raises UserError if there is none."""
    if not path.is_dir():
        return path
    for name in SCORES:
        if (path / name).is_file():
            return path / name
    raise UserError(f"no {SCORES[0]} in it", where=path, hint="Name the study's table of scores.")


def _arm(name: str) -> dict[str, Any]:
    objective, _, variant = name.partition("-")
    return asdict(Arm(name, objective, variant))


def _patients_near(table: Path) -> Path | None:
    folders = (table.parent, table.parent.parent)
    return next((folder / PATIENTS for folder in folders if (folder / PATIENTS).is_file()), None)
