"""Names of the files in a run's folder. Torch-free: analysis needs only these."""

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
QUESTIONNAIRES = "questionnaires.csv"
"""What the simulated patients answered after their sessions."""

AUDIT = "audit.json"
PATIENTS_AUDIT, PATIENTS_PAGE = "patients_audit.json", "patients_audit.html"
REPORT = "report.json"

SUMMARY = "summary.json"
"""The result of a stage, written last: a stage that has it is finished."""
