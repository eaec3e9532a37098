"""Reports whose numbers come from the real analysis of a table of ratings, made here."""

from typing import Any

import numpy as np
from rating_table import rating_table

from cbtrain.eval.analysis.agreement.panel import panel_of
from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.descriptives import session_groups
from cbtrain.eval.analysis.ratings import Ratings, Scale
from cbtrain.eval.analysis.sessions import SessionOutcome
from cbtrain.eval.report.schema.analysis import Analysis
from cbtrain.eval.report.schema.report import SCHEMA
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.study.evaluation.participant_flow import participant_flow

ENDINGS = ("patient_end", "max_turns", "goodbye")


def ratings_of(arms: list[Arm], totals: dict[tuple[str, str, int], list[float]], names: tuple[str, ...]) -> Ratings:
    """``totals``: by arm, patient and session the score of each item; NaN is no score."""
    keys = list(totals)
    return rating_table(
        names,
        {arm.name: arm for arm in arms},
        np.array([key[0] for key in keys]),
        np.array([key[1] for key in keys]),
        np.array([key[2] for key in keys]),
        np.full(len(keys), "judge"),
        np.zeros(len(keys), dtype=np.int64),
        np.array([totals[key] for key in keys], dtype=np.float64).reshape(len(keys), len(names)),
        Scale(0, 6, 40),
    )


def random_ratings(arms: list[Arm], patients: int, sessions: int, items: int = 11, seed: int = 1) -> Ratings:
    """Scores from 0 to 6; tuned arms are the better ones, patients differ, a few sessions have no score."""
    random = np.random.default_rng(seed)
    level = random.normal(0, 0.5, patients)
    found = {}
    for place, arm in enumerate(arms):
        for patient in range(patients):
            for session in range(sessions):
                mean = 2.2 + 0.12 * place + 0.7 * (arm.variant == "tuned") + level[patient]
                scores = np.clip(np.round(random.normal(mean, 0.9, items)), 0, 6)
                if random.random() < 0.02:
                    scores[0] = np.nan
                found[arm.name, f"p{patient:02}", session] = list(scores)
    return ratings_of(arms, found, tuple(f"domain {place + 1}" for place in range(items)))


def analyzed_report(ratings: Ratings, scale: dict[str, Any] | None = None, draws: int = 200) -> dict[str, Any]:
    """The report that an evaluation would make of these ratings, with dialogues of made-up length."""
    random = np.random.default_rng(0)
    sessions = []
    for row in range(len(ratings)):
        total = float(ratings.total[row])
        turns = int(random.integers(6, 24)) + 6 * (ratings.arms[ratings.arm[row]].variant != "tuned")
        scores = zip(ratings.item_names, map(float, ratings.items[row]), strict=True)
        sessions.append(
            {
                "id": f"{ratings.patient[row]}.{ratings.arm[row]}.{ratings.session[row]}",
                "arm": str(ratings.arm[row]),
                "patient": str(ratings.patient[row]),
                "patient_name": f"Patient {ratings.patient[row]}",
                "seed": int(ratings.session[row]),
                "ending": ENDINGS[int(random.integers(0, 3))] if np.isfinite(total) else "provider_error",
                "error": None,
                "turns": [{"role": ("patient", "therapist")[i % 2], "text": "…"} for i in range(turns)],
                "total": total if np.isfinite(total) else None,
                "domains": {name: score if np.isfinite(score) else None for name, score in scores},
                "status": "scored",
            }
        )
    facts = {
        (row["arm"], row["patient"], row["seed"]): SessionOutcome(
            len(row["turns"]), 80 * len(row["turns"]), row["ending"], row["ending"] == "provider_error"
        )
        for row in sessions
    }
    found = analysis(ratings, "default", facts, draws=draws)
    simulated = [
        SimulatedSession(row["id"], row["arm"], row["patient"], row["seed"], [], row["ending"]) for row in sessions
    ]
    flows = participant_flow(simulated, ratings, panel_of(ratings), Analysis.model_validate(found))
    groups = {group.name: group for group in session_groups(ratings)}
    arms = []
    for group in (groups[row["name"]] for row in found["arms"]):
        own = [session for session in sessions if session["arm"] == group.name]
        endings = [session["ending"] for session in own]
        arms.append(
            {
                "name": group.name,
                "label": group.name,
                "base": group.base,
                "variant": group.variant,
                "sessions": len(own),
                "rated": group.n,
                "failed": 0,
                "total_mean": group.mean if group.n else None,
                "total_sd": group.sd if group.n > 1 else None,
                "domains": {name: None if np.isnan(mean) else float(mean) for name, mean in group.items.items()},
                "endings": {name: endings.count(name) for name in dict.fromkeys(endings)},
                "turns_mean": float(np.mean([len(session["turns"]) for session in own])),
                "words_per_therapist_turn": 80.0,
                "flow": flows[group.name].model_dump(exclude_unset=True),
            }
        )
    names = ratings.item_names
    plain = {"name": "A scale", "min": 0, "max": 6, "total_max": 6 * len(names), "cutoff": None, "note": ""}
    return {
        "schema": SCHEMA,
        "title": "Analyzed",
        "rater": {"judge": "judge", "kind": "llm", "label": "LLM judge"},
        "scale": {**plain, "domains": [{"id": name, "name": name} for name in names], **(scale or {})},
        "arms": arms,
        "sessions": sessions,
        "analysis": found,
    }
