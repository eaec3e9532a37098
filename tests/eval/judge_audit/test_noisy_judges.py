"""Simulated judges whose ratings scatter: a fair one is not accused, one that likes length is found with enough patients."""

import numpy as np
from scripted_judges import SESSION

from cbtrain.eval.judge_audit.asked_again import turned_round
from cbtrain.eval.judge_audit.audit import Asked, Audited, audit
from cbtrain.eval.judge_audit.probes import copies, matching_of
from cbtrain.eval.judge_audit.summary import summary
from cbtrain.eval.judge_audit.writer import materials
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.simulation.runner import SimulatedSession

RUBRIC = load_rubric()
MATCHING = matching_of(RUBRIC)
FALLS = {
    "no agenda": {"agenda"},
    "no homework": {"homework"},
    "lectures": {"guided_discovery"},
    "contradicts": {"understanding"},
    "misplaced": {"understanding"},
    "ruined": {"agenda", "homework", "guided_discovery", "understanding"},
}


def verdicts(patients, scatter, seed, per_100_words=0.0):
    """Verdicts on a judge that lowers what matches by two points, whose scores have an SD of ``scatter`` around what it
    thinks, and that likes words."""
    rng = np.random.default_rng(seed)
    originals = [SimulatedSession(f"s{n}", "a", f"p{n}", 0, list(SESSION)) for n in range(patients)]
    made = copies(originals, materials(originals, RUBRIC))
    level = {session.id: 3.2 + rng.normal(0, 0.8) + rng.normal(0, 0.6, len(RUBRIC.ids)) for session in originals}

    def rating(session, original, rubric=RUBRIC, probe="", words=0):
        thought = level[original] + rng.normal(0, scatter, len(RUBRIC.ids)) + per_100_words * words / 100
        scores = {
            name: None if probe in ("empty", "garbage") else float(np.clip(np.round(one - 2 * fallen), 0, 6))
            for name, one in zip(RUBRIC.ids, thought, strict=True)
            for fallen in [name in FALLS.get(probe, ())]
        }
        where = {"session_id": session.id, "arm": "a", "patient": "p", "seed": 0, "judge": "j", "repeat": 0}
        status = "ok" if None not in scores.values() else "unratable"
        domains = {name: scores[name] for name in rubric.ids}
        return Score(**where, status=status, domains=domains, requests=[f"{original}/call"])

    turned = turned_round(RUBRIC)
    asked = Asked(
        first=[rating(session, session.id) for session in originals],
        again=[rating(session, session.id) for session in originals],
        turned=[rating(session, session.id, turned) for session in originals],
        copied=[rating(copy.session, copy.original, RUBRIC, copy.probe, copy.words) for copy in made],
    )
    lines = summary(audit(Audited(originals, made, RUBRIC, MATCHING), asked), {})
    return {line["kind"]: line["verdict"] for line in lines}


def test_a_fair_judge_that_scatters_is_not_accused():
    for patients, scatter in ((20, 0.8), (6, 0.8), (6, 1.5)):
        for seed in range(5):
            assert "not as expected" not in verdicts(patients, scatter, seed).values(), (patients, scatter, seed)


def test_steadiness_and_patients_decide_what_can_be_told():
    steady, scattered = verdicts(20, 0.3, 1), verdicts(6, 1.5, 1)
    assert {steady[kind] for kind in steady if kind != "wording"} == {"as expected"}
    assert {scattered[kind] for kind in ("content", "length", "order", "injection")} == {"cannot be told"}


def test_a_taste_for_length_is_found_through_scatter():
    assert verdicts(20, 0.8, 1, per_100_words=2.0)["length"] == "not as expected"
