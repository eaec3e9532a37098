"""Ratings by people that ``cbtrain rate import`` brought into a run: part of its results, kept beside the machine's."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from cbtrain.eval.forms.bring_back import TABLE, beside
from cbtrain.eval.scores import Score, read_scores_csv


def human_scores(folder: Path) -> list[Score]:
    """Those in ``folder``, with the evidence and notes that stand beside the table; none where there are none. Raises
    UserError on a malformed table."""
    table = folder / TABLE
    if not table.is_file():
        return []
    scores, notes = read_scores_csv(table), _notes(beside(table, "notes.jsonl"))
    for score in scores:
        note = notes.get((score.session_id, score.judge, score.repeat), {})
        score.evidence, score.reason = note.get("evidence", {}), note.get("reason", {})
    return scores


def _notes(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """By session, judge and repeat. They add to the scores: what cannot be read is left out."""
    found = {}
    known = {field.name for field in fields(Score)}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            note = json.loads(line)
        except ValueError:
            continue
        if isinstance(note, dict) and known <= set(note):
            found[note["session_id"], note["judge"], note["repeat"]] = note
    return found
