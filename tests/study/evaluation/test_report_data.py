"""What the report says of sessions that several judges rated several times."""

import pytest

from cbtrain.eval.analysis.agreement.panel import panel_of
from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.ratings import ratings_of
from cbtrain.eval.analysis.sessions import session_outcomes
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.report.flow import stage_texts
from cbtrain.eval.report.schema.analysis import Analysis
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.study.evaluation.report_data import describe_arms, describe_sessions
from cbtrain.study.evaluation.scores import as_transcripts
from cbtrain.transcripts.types import Turn

RUBRIC = load_rubric()
IDS = [domain.id for domain in RUBRIC.domains]
SESSION = SimulatedSession(
    "p1.base.0", "base", "p1", 0, [Turn("patient", "Hm."), Turn("therapist", "Yes?")] * 4, "patient_end"
)


def rated(judge, repeat, points, missing=0, status="ok"):
    domains = {name: None if place < missing else float(points) for place, name in enumerate(IDS)}
    return Score(
        session_id="p1.base.0",
        arm="base",
        patient="p1",
        seed=0,
        judge=judge,
        repeat=repeat,
        status=status,
        domains=domains,
        evidence={IDS[0]: [1]},
        reason={IDS[0]: f"{points}!"},
    )


def described(*scores, session=SESSION, primary_judges=("a", "b")):
    ratings = ratings_of(scores, IDS, ["base"], RUBRIC)
    return describe_sessions([session], scores, {"p1": "Mara"}, ratings, panel_of(ratings, primary_judges))[0]


def test_a_mean_is_over_judges_not_over_ratings():
    found = described(rated("a", 0, 2), rated("a", 1, 2), rated("a", 2, 5), rated("b", 0, 5))
    assert found.total == 11 * 4.0
    assert found.domains == dict.fromkeys(IDS, 4.0)
    assert found.flags == ["at_or_above_cutoff", "ratings_disagree"]
    assert found.status == "ok"
    assert found.patient_name == "Mara"
    assert [(r.judge, r.repeat, r.total) for r in found.ratings] == [
        ("a", 0, 22.0),
        ("a", 1, 22.0),
        ("a", 2, 55.0),
        ("b", 0, 55.0),
    ]
    assert found.ratings[2].evidence == {IDS[0]: [1]}
    assert found.ratings[2].reason == {IDS[0]: "5!"}


def test_what_was_not_scored_is_filled_in_nowhere():
    found = described(rated("a", 0, 3), rated("b", 0, 1, missing=1, status="unratable"), primary_judges=["a"])
    assert found.total == 33.0
    assert [found.domains[name] for name in IDS[:2]] == [3.0, 3.0]
    assert found.status == "ok, unratable"
    found = described(rated("b", 0, 1, missing=11, status="refused"))
    assert found.total is None
    assert found.domains == dict.fromkeys(IDS)
    assert (found.status, found.flags) == ("refused", ["not_rated"])


def test_a_session_without_a_rating():
    failed = SimulatedSession("p1.base.0", "base", "p1", 0, [], "budget", "spent")
    found = described(session=failed)
    assert (found.status, found.ratings) == ("not rated: the session failed", [])
    assert found.flags == ["failed", "not_rated", "short"]
    assert described().status == "not rated"


def test_secondary_judges_change_no_score_and_a_panel_is_whole_or_silent():
    found = described(rated("a", 0, 2), rated("human: Ann", 0, 6), primary_judges=["a"])
    assert (found.total, len(found.ratings)) == (22.0, 2)
    rows = [("a", seed, 2 + seed % 2) for seed in range(10)] + [("b", seed, 4) for seed in range(9)]
    *both, one = sessions_of(rows)
    assert [session.total for session in both] == [33.0, 38.5, 33.0, 38.5, 33.0, 38.5, 33.0, 38.5, 33.0]
    assert (one.total, one.domains, one.flags) == (None, dict.fromkeys(IDS), ["not_rated"])


def sessions_of(rows, count=10):
    """What the report says of sessions by (judge, seed, points)."""
    scores = [
        Score(
            session_id=f"p{seed}",
            arm="base",
            patient=f"p{seed}",
            seed=0,
            judge=judge,
            repeat=0,
            status="ok",
            domains=dict.fromkeys(IDS, float(points)),
        )
        for judge, seed, points in rows
    ]
    ratings = ratings_of(scores, IDS, ["base"], RUBRIC)
    held = [SimulatedSession(f"p{seed}", "base", f"p{seed}", 0, SESSION.turns, "patient_end") for seed in range(count)]
    return describe_sessions(held, scores, {}, ratings, panel_of(ratings))


def test_sessions_of_pooled_judges_are_compared_without_their_severity():
    """The one gives two points an item more than the other, and each rated two thirds, ten sessions in common."""
    rows = [("mild", seed, 4) for seed in range(20)] + [
        ("severe", seed, 2 if seed < 29 else 0) for seed in range(10, 30)
    ]
    found = sessions_of(rows, 30)
    assert [session.total for session in found] == pytest.approx([33.0] * 29 + [11.0])
    assert found[0].domains == dict.fromkeys(IDS)  # without severity they could lie outside the scale
    # Flags of the scale's ends are about the scores that were given.
    assert (found[28].flags, found[29].flags) == ([], ["at_floor"])
    apart = sessions_of([row for row in rows if row[0] == "mild" or row[1] > 11], 30)
    assert {session.total for session in apart} == {None}
    assert {session.status for session in apart} == {"ok"}
    assert (apart[28].flags, apart[29].flags) == ([], ["at_floor"])


def played(arm, patient, seed, ending="patient_end"):
    return SimulatedSession(f"{patient}.{arm}.{seed}", arm, patient, seed, [], ending)


def scored(session, judge="a", missing=0):
    domains = {name: None if place < missing else 3.0 for place, name in enumerate(IDS)}
    return Score(session_id=session.id, arm=session.arm, patient=session.patient, seed=session.seed, judge=judge,
                 repeat=0, status="ok", domains=domains)  # fmt: skip


def described_arms(sessions, scores, arms):
    """The arms of the report that these sessions and scores give."""
    ratings = ratings_of(scores, IDS, arms, RUBRIC)
    outcomes = session_outcomes(as_transcripts(sessions))
    found = Analysis.model_validate(analysis(ratings, "default", outcomes, primary_judges=["a"], draws=20))
    panel = panel_of(ratings, ["a"])
    return found, {arm.name: arm for arm in describe_arms(sessions, ratings, panel, found)}


def test_the_flow_counts_every_session_of_the_plan():
    arms = ["llama-tuned", "llama-untuned", "qwen-tuned"]
    cells = [(patient, seed) for patient in ("p1", "p2", "p3") for seed in (0, 1)]
    endings = {"p1.llama-tuned.0": "provider_error", "p2.llama-tuned.0": "max_turns", "p3.llama-tuned.1": None,
               "p1.llama-untuned.1": "budget", "p2.llama-untuned.1": "provider_error"}  # fmt: skip
    sessions = [played(arm, patient, seed, endings.get(f"{patient}.{arm}.{seed}", "patient_end"))
                for patient, seed in cells for arm in arms]  # fmt: skip
    held = [session for session in sessions if session.ending and not session.failed]
    scores = [scored(session, missing=session.id == "p2.llama-tuned.0") for session in held]
    found, described = described_arms(sessions, scores, arms)
    assert list(described) == ["llama-untuned", "llama-tuned", "qwen-tuned"]
    assert [arm.label for arm in described.values()] == ["llama untuned", "llama tuned", "qwen tuned"]
    tuned = described["llama-tuned"].flow
    assert (tuned.planned, tuned.held, tuned.failed, tuned.rated, tuned.compared) == (6, 5, 1, 3, 1)
    assert (tuned.endings, tuned.failures) == (
        {"patient_end": 3, "max_turns": 1, "provider_error": 1}, {"provider_error": 1},
    )  # fmt: skip
    untuned = described["llama-untuned"].flow
    assert (untuned.failures, untuned.rated) == ({"budget": 1, "provider_error": 1}, 4)
    assert (tuned.contrast, tuned.patients) == ("llama: tuned − untuned", 1)
    for name, arm in described.items():
        flow, row = arm.flow, next(row for row in found.completion.arms if row.name == name)
        assert flow.planned == row.planned == 6
        assert flow.failed == sum(flow.failures.values()) <= flow.held == sum(flow.endings.values())
        assert flow.compared <= flow.paired <= flow.rated <= flow.held - flow.failed
        contrast = next(contrast for contrast in found.contrasts if contrast.id == flow.contrast)
        assert (flow.compared, flow.patients) == (contrast.pairs, len(contrast.patients))


def test_the_flow_of_scores_without_transcripts_has_what_is_known():
    sessions = [played("tuned", "p1", 0, None), played("base", "p1", 0, None)]
    _, described = described_arms(sessions, [scored(session) for session in sessions], ["base", "tuned"])
    flow = described["tuned"].flow
    assert (flow.planned, flow.held, flow.failed, flow.rated, flow.paired, flow.compared) == (1, None, None, 1, 1, 1)
    assert stage_texts(flow) == ["1", "n/a", "n/a", "1", "1", "1: tuned − base, 1 patient"]
