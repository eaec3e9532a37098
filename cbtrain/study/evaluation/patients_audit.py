"""Audit simulated patients: read the sets of sessions, measure and compare them, and write the result and its page."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from rich.console import Console

import cbtrain
from cbtrain.console import say
from cbtrain.errors import UserError
from cbtrain.eval.patient_audit.describe import SCHEMA, SessionSet, compared, described, named_apart, session_set
from cbtrain.eval.patient_audit.measures import MEASURES
from cbtrain.eval.report.patients_page import render_patients
from cbtrain.eval.report.schema.patients import ReportPatients
from cbtrain.files import write_atomic, written_together
from cbtrain.study.evaluation.patient_facts import FactsJudge, cases_of_run, check_facts, facts_of
from cbtrain.study.run_files import CONFIG, PATIENTS_AUDIT, PATIENTS_PAGE
from cbtrain.transcripts.labels import names_of
from cbtrain.transcripts.reading import read

CANNOT = (
    "Measures of words find differences. That they find none is no proof that simulated patients are realistic, and a "
    "difference from one set of people is none from all."
)


def audit_patients(
    path: Path,
    against: list[Path],
    folder: Path | None,
    console: Console,
    *,
    judge: FactsJudge | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the patients at ``path`` (a run, or transcripts), compare them with each set of ``against``, and return
    what was found. With a ``folder``, write ``patients_audit.json`` and ``patients_audit.html`` there.

    ``judge``: reads dialogues for facts of the patients' cases, and keeps its answers in the folder. Raises UserError
    on what cannot be read, and on facts that cannot be asked for.
    """
    if judge is not None and folder is None:
        hint = "Name a folder with --out: paid answers are kept there."
        raise UserError("a judge needs a folder for its answers", where="--judge", hint=hint)
    if judge is not None:
        check_facts(path, judge)
    first, *others = named_apart([_read(place, console) for place in (path, *against)])
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "cbtrain_version": cbtrain.__version__,
        "notice": cbtrain.NOTICE,
        "cannot": CANNOT,
        "seed": seed,
        "measures": dict(MEASURES),
        "sets": [described(one) for one in (first, *others)],
        "comparisons": [compared(first, other, seed) for other in others],
        "interval": "95 % of Welch's t over patients",
        "test": "energy distance of patients' standardized measures, permutation of patients",
        "facts": None,
    }
    if judge is not None and folder is not None:
        found["facts"] = asyncio.run(facts_of(path, folder, judge, console, seed))
    if folder is not None:
        text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
        with written_together(folder) as temporary:
            write_atomic(temporary / PATIENTS_AUDIT, text + "\n")
            write_atomic(temporary / PATIENTS_PAGE, render_patients(ReportPatients.model_validate(found)))
    return found


def default_folder(path: Path) -> Path | None:
    """Return where the audit of a run is written; None if ``path`` is no run."""
    return path / "patients_audit" if (path / CONFIG).is_file() else None


def _read(path: Path, console: Console) -> SessionSet:
    """Return the measured sessions at ``path``; say what was left out. Raises UserError if no patient speaks."""
    corpus = read(path, skip_bad=True)
    for line in (*corpus.skipped, *corpus.notes):
        say(console, f"left out: {line}")
    names, cases = {course.id: names_of(course.profile, ()) for course in corpus.courses}, cases_of_run(path)
    for course in corpus.courses:
        if course.patient in cases:
            name = cases[course.patient].name
            names[course.id] |= dict.fromkeys((name, name.split()[0]), "patient")
    one = session_set(path.resolve().name, str(path), corpus.sessions(), names)
    if not one.sessions:
        raise UserError("no patient says a word in it", where=path, hint="Take transcripts of whole sessions.")
    if one.silent:
        say(console, f"left out: {one.silent} sessions of {path} in which the patient says nothing")
    return one
