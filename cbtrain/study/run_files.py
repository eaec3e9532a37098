"""What the files of a run's folder are called. Torch-free: analysis needs these names alone."""

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"

STATE = "study.json"
"""What the training half tells the evaluation half."""

EVENTS = "events.jsonl"
"""The journal of a run: every turn, every judge's rating and every paid request, the source of truth."""

TRANSCRIPTS = "sessions.jsonl"
SCORES = "scores.csv"
AUDIT = "audit.json"
REPORT = "report.json"

SUMMARY = "summary.json"
"""The result of a stage, written last: a stage that has it is finished."""
