"""A rubric as a new user writes it: four items, anchors at 1, 3 and 5 only, half points, one item reversed."""

import json
from pathlib import Path

IDS = ("goals", "warmth", "lecturing", "tasks")


def short_rubric(folder: Path) -> Path:
    domains = [
        {"id": "goals", "anchors": {1: "No goal.", 3: "A vague goal.", 5: "A clear goal."}, "subscale": "Structure"},
        {"id": "warmth", "description": "Is the therapist kind?", "anchors": {1: "Cold.", 5: "Kind."}},
        {"id": "lecturing", "reversed": True, "anchors": {1: "None.", 3: "Some.", 5: "All the time."}},
        {"id": "tasks", "name": "Tasks for home", "weight": 2.0},
    ]
    path = folder / "short.yaml"
    path.write_text(json.dumps({"name": "Short", "minimum": 1, "maximum": 5, "step": 0.5, "domains": domains}))
    return path
