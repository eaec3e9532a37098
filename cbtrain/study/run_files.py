"""Names of the files in a run's folder. Torch-free: analysis needs only these."""

from pathlib import Path

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"

STATE = "study.json"
"""What training passes on to the evaluation."""

EVENTS = "events.jsonl"
"""The journal of a run: every turn, every judge's rating and every paid request, the source of truth."""

REQUESTS = "requests.jsonl"
"""Every request to an API and every reply, word for word, failed ones too: what ``cbtrain show --raw`` prints."""

PLAN = "plan.yaml"
"""What was planned before the first session: therapists, patients, contrasts, outcomes, judges, with digests."""

PATIENTS = "patients.jsonl"
"""All that is known of the patients of a library or a file, one a line."""

TRANSCRIPTS = "sessions.jsonl"
SCORES = "scores.csv"
RUBRIC = "rubric.yaml"
"""The instrument of the scores beside it."""

QUESTIONNAIRES = "questionnaires.csv"
"""What the simulated patients answered after their sessions."""

AUDIT, AUDIT_PAGE = "audit.json", "audit.html"
PATIENTS_AUDIT, PATIENTS_PAGE = "patients_audit.json", "patients_audit.html"
REPORT = "report.json"

SUMMARY = "summary.json"
"""The result of a stage, written last: a stage that has it is finished."""


def of_instrument(name: str, instrument: str) -> str:
    """Return the name of a file like ``name`` for a further instrument: ``scores.alliance.csv``."""
    path = Path(name)
    return f"{path.stem}.{instrument}{path.suffix}"


def rubric_beside(table: Path) -> Path:
    """Return where the instrument of the scores in ``table`` is kept: ``rubric.alliance.yaml`` for
    ``scores.alliance.csv``, ``rubric.yaml`` for others."""
    _, found, instrument = table.stem.partition(f"{Path(SCORES).stem}.")
    return table.with_name(of_instrument(RUBRIC, instrument) if found else RUBRIC)
