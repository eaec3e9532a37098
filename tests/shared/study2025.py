"""A made-up study in the layout of the 2025 one: its table of scores and its file of patients."""

import csv
import json

import numpy as np

from cbtrain.eval.analysis.tahir2025.scores import ARMS, COLUMNS, SUBSCALES


def row_of(patient, arm, items, words=900):
    """A row of the table, whose totals are those of ``items``: points of ACT-FM's consistent, of its inconsistent and of
    TES's items, alike in each."""
    consistent, inconsistent, empathy = items
    row = {"session_id": patient, "model_type": arm, "parsing_status": "OK", "word_count": words}
    row |= {"turn_count": 51, "therapist_turns": 25, "patient_turns": 26}
    for name, (numbers, weight) in SUBSCALES.items():
        points = consistent if "_consistent_" in name else inconsistent
        row |= {f"act_fm_item_{number}": points for number in numbers}
        row[name] = weight * points * len(numbers)
    row |= {f"tes_item_{number}": empathy for number in range(1, 10)}
    totals = {"act_fm_total_consistency": 12 * consistent, "act_fm_total_inconsistency": 12 * inconsistent}
    return row | totals | {"tes_total_empathy_mean": empathy}


def made(patients=24):
    """Scores of a made-up study: SFT harms every second patient, and those are called cautious below."""
    rng = np.random.default_rng(5)
    rows = []
    for patient in range(1, patients + 1):
        for arm in ARMS:
            harm = 2 if arm.startswith("sft") and patient % 2 else 0
            points = int(np.clip(rng.integers(2, 4) - harm, 0, 3))
            rows.append(row_of(patient, arm, (points, 3 - points, 1 + points), words=int(rng.integers(700, 1200))))
    return rows


def write(path, rows, columns=COLUMNS):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def profiles(path, patients=24):
    kinds = {0: "The Curious Gardener", 1: "The Cautious Sailor"}
    records = [
        {
            "full_scenario_text": "Patient is a person (30), works as a cook, and is currently single. Primary concern "
            f"involves {'grief' if number % 3 else 'worry'} (low days), particularly at night.",
            "archetype_name": kinds[number % 2],
            "profile_hash": f"made-{number}",
        }
        for number in range(1, patients + 1)
    ]
    path.write_text(json.dumps(records))
    return path


def by_name(rows, key="name"):
    """Rows of a result by what they are called."""
    return {row[key]: row for row in rows}
