"""A run folder with simulated sessions, as an evaluation leaves it, for tests of human ratings."""

import json
from pathlib import Path

import yaml

from cbtrain.config.loading import load_config
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.simulation.runner import plan_sessions
from cbtrain.study.evaluation.scores import as_transcripts
from cbtrain.transcripts.types import Turn
from cbtrain.transcripts.writing import write_sessions

DOMAINS = [domain.id for domain in load_rubric().domains]
ARMS = ("frozenbase", "loratuned")
"""Names that no dialogue, scale or page holds by chance."""

PATIENTS = ("zz-quist", "zz-rowe", "zz-stam")


def sessions_of(patients=PATIENTS, arms=ARMS, seeds=2):
    """Sessions of six turns, every one with words of its own."""
    made = plan_sessions(patients, arms, seeds)
    for place, session in enumerate(made):
        session.turns = [
            Turn("therapist" if turn % 2 else "patient", f"Words {place} of turn {turn}.") for turn in range(6)
        ]
        session.ending = "max_turns"
    return made


def run_folder(folder: Path, sessions, rubric: str = "cbt_fidelity") -> Path:
    folder.mkdir()
    settings = load_config(None, [f"evaluation.judging.rubric={rubric}"]).model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (folder / "events.jsonl").write_text("", encoding="utf-8")
    write_sessions(as_transcripts(sessions), [], folder / "sessions.jsonl")
    return folder


def key_of(folder: Path):
    return json.loads((folder / "key.json").read_text(encoding="utf-8"))
