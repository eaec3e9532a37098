"""Judges that take turns: balanced, stable when sessions are added, and unbiased in every contrast."""

from collections import Counter

import numpy as np
import pytest

from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.ratings import ratings_of
from cbtrain.eval.rating.allocation import in_rotation
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.simulation.runner import plan_sessions

JUDGES = ("lenient", "strict", "middle")
ARMS = ("tiny-untuned", "tiny-tuned")
RUBRIC = Rubric.model_validate({"name": "One", "minimum": 0, "maximum": 60, "domains": [{"id": "skill"}]})


def judge_of(sessions, judges=JUDGES):
    shares = in_rotation(sessions, judges)
    assert sum(map(len, shares.values())) == len(sessions)
    return {session.id: judge for judge, share in shares.items() for session in share}


@pytest.mark.parametrize(("patients", "seeds"), [(6, 1), (5, 2), (7, 3), (1, 6)])
def test_every_judge_rates_as_many_of_each_arm_and_sessions_that_are_compared_have_one_judge(patients, seeds):
    names = [f"p{number}" for number in range(patients)]
    sessions = plan_sessions(names, ARMS, seeds)
    judges = judge_of(sessions)
    by_block = {}
    for session in sessions:
        by_block.setdefault((session.patient, session.seed), set()).add(judges[session.id])
    assert all(len(block) == 1 for block in by_block.values())
    for arm in ARMS:
        counts = Counter(judges[session.id] for session in sessions if session.arm == arm)
        assert max(counts.values()) - min(counts[judge] for judge in JUDGES) <= 1
    more = judge_of(plan_sessions([*names, "new"], [*ARMS, "tiny-placebo"], seeds + 2))
    assert {id_: more[id_] for id_ in judges} == judges


def test_contrasts_are_those_of_the_whole_panel_and_cost_one_judge():
    """Judges differ in level and in what they see in tuning: in turns they give the mean of all, without bias."""
    rng, severity, liking = np.random.default_rng(5), (9.0, -7.0, 1.0), (4.0, 0.0, -1.0)
    sessions = plan_sessions([f"p{number:02}" for number in range(12)], ARMS, 2)
    judges, estimates, covered, levels = judge_of(sessions), [], 0, []
    for _ in range(120):
        gain, level = rng.normal(5, 2, 12), rng.normal(30, 3, 12)
        scores = []
        for session in sessions:
            patient, judge = int(session.patient[1:]), JUDGES.index(judges[session.id])
            tuned = session.arm == "tiny-tuned"
            value = level[patient] + severity[judge] + tuned * (gain[patient] + liking[judge]) + rng.normal(0, 2)
            score = Score.empty(session, JUDGES[judge], 0, RUBRIC)
            score.status, score.domains["skill"] = "ok", float(value)
            scores.append(score)
        ratings = ratings_of(scores, RUBRIC.ids, ARMS, RUBRIC)
        found = analysis(ratings, "default", primary_judges=JUDGES, rotating=True, draws=20)
        (contrast,) = found["contrasts"]
        estimates.append(contrast["estimate"])
        covered += contrast["ci_low"] <= 6 <= contrast["ci_high"]  # 5, and what the judges see in it: 1 on average
        levels.append([group["mean"] for group in found["groups"]])
    assert np.mean(estimates) == pytest.approx(6, abs=4 * np.std(estimates) / np.sqrt(120))
    assert covered >= 108
    assert np.mean(levels, axis=0) == pytest.approx([31, 37], abs=0.6)  # the panel's mean of each arm
    assert found["panel"]["rotating"]
    assert not found["panel"]["pooled"]
    assert any("take turns: each session was rated by one of them" in note for note in found["notes"])
    assert found["agreement"]["between"] == []
