"""Changed copies of sessions, and what is made of their shifts."""

from itertools import pairwise

import pytest

from cbtrain.eval.judge_audit.audit import audit, copies, pick
from cbtrain.eval.judge_audit.findings import shift, unratable
from cbtrain.eval.judge_audit.probes import OTHERS, PROBES, TOTAL
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.study.evaluation.rate import records
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.types import Turn

CHANGE = {probe.id: probe.change for probe in PROBES}


def session(*texts):
    return [Turn(("patient", "therapist")[i % 2], text) for i, text in enumerate(texts)]


TURNS = session(
    "I feel low.",
    "Welcome back. Let us set an agenda. What would you like to talk about?",
    "Work, mostly.",
    "How did the homework go?",
    "I did not do it.",
    "Thank you for telling me. What went through your mind at work?",
    "That I am useless.",
    "What would you like to say to a friend who thinks so?",
    "That it was one bad day.",
    "For next week, write down two such thoughts.",
    "All right.",
)


def texts(turns):
    return [turn.text for turn in turns]


def test_what_is_left_out_and_what_is_not():
    found = CHANGE["no agenda"](TURNS)
    # The late question with the same words is no agenda.
    assert texts(found) == ["I feel low.", "Welcome back.", *texts(TURNS)[2:]]
    found = CHANGE["no homework"](TURNS)
    gone = {
        "How did the homework go?",
        "I did not do it.",
        "For next week, write down two such thoughts.",
        "All right.",
    }
    assert texts(found) == [text for text in texts(TURNS) if text not in gone]


def test_questions_become_statements_and_the_patient_is_left_alone():
    found = CHANGE["lectures"](TURNS)
    assert not any("?" in turn.text for turn in found)
    assert [turn for turn in found if turn.role == "patient"] == [turn for turn in TURNS if turn.role == "patient"]
    assert found[5].text.startswith("Thank you for telling me. ")


def test_contradictions_stand_before_what_was_said():
    found = CHANGE["contradicts"](TURNS)
    for before, after in zip(TURNS, found, strict=True):
        assert after.text.endswith(before.text)
        assert (after.text != before.text) == (before.role == "therapist")


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.id)
def test_every_probe_changes_the_sample_as_it_says(probe):
    for original in records(read("sample").sessions()):
        found = probe.change(original.turns)
        assert found is not None
        assert found == probe.change(original.turns)
        assert found != original.turns
        roles = [turn.role for turn in found]
        assert all(one != other for one, other in pairwise(roles)), original.id
        words = [len(" ".join(texts(turns)).split()) for turns in (original.turns, found)]
        if probe.id == "duplicate":
            assert " ".join(texts(found)).split() == " ".join(texts(original.turns)).split()
        if probe.id == "padded":
            kept = iter(found)
            assert all(turn in kept for turn in original.turns)  # all there, in order
            assert 1.05 < words[1] / words[0] < 1.5
        if probe.id.startswith("no "):
            assert 0.6 < words[1] / words[0] < 1


def test_where_there_is_nothing_to_change_there_is_no_copy():
    bare = session("I feel low.", "I see.", "Yes.", "Go on.")
    assert {probe.id for probe in PROBES if probe.change(bare) is None} == {
        "duplicate",
        "no agenda",
        "no homework",
        "lectures",
    }
    assert CHANGE["padded"](session("I feel low.", "I see.")) is None
    assert CHANGE["contradicts"](bare[:1]) is None
    assert [probe.id for probe in PROBES if probe.change([]) is not None] == ["empty", "garbage"]


def test_sessions_are_picked_for_as_many_patients_as_can_be():
    sessions = [SimulatedSession(f"p{p}.{s}", "a", f"p{p}", s, list(TURNS)) for p in range(4) for s in range(5)]
    sessions.append(SimulatedSession("unread", "a", "p4", 0))
    sessions[0].ending = "budget"
    picked = pick(sessions, 6, seed=1)
    assert len(picked) == 6
    assert {session.patient for session in picked} == {"p0", "p1", "p2", "p3"}
    assert picked == pick(sessions, 6, seed=1) != pick(sessions, 6, seed=2)
    assert picked == [session for session in sessions if session in picked]
    assert not {"p0.0", "unread"} & {session.id for session in pick(sessions, 100)}
    assert len(pick(sessions, 100)) == 19


@pytest.mark.parametrize(
    ("expected", "shifts", "verdict"),
    [
        ("same", [0.0] * 6, "as expected"),
        ("same", [0.4, -0.4, 0.3, -0.3, 0.2, -0.2], "as expected"),
        ("same", [-2.0] * 6, "not as expected"),
        ("same", [2.0] * 6, "not as expected"),
        ("same", [-4.0, 4.0, -3.0, 3.0, 1.0, -1.0], "cannot be told"),
        ("same", [0.0] * 4, "cannot be told"),
        ("falls", [-2.0, -1.0, -1.0, -2.0, -3.0, -1.0], "as expected"),
        ("falls", [0.0] * 6, "not as expected"),
        ("falls", [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], "not as expected"),
        ("falls", [-0.6, -0.6, -0.6, -0.1, -0.1, -0.1], "cannot be told"),
        ("falls", [-9.0, 8.0, 1.0, -3.0, 2.0, -1.0], "cannot be told"),
        ("falls", [-2.0] * 4, "cannot be told"),
        ("falls", [], "cannot be told"),
        (None, [-2.0] * 6, None),
    ],
)
def test_verdicts(expected, shifts, verdict):
    pairs = [(f"p{i}", 3.0, 3.0 + value) for i, value in enumerate(shifts)]
    found = shift("agenda", expected, pairs, 0.5)
    assert found.verdict == verdict
    if shifts:
        assert found.before == 3.0
        assert found.shift == pytest.approx(sum(shifts) / len(shifts))
        assert found.ci_low is None if len(shifts) < 5 else found.ci_low <= found.shift <= found.ci_high


def test_sessions_of_one_patient_are_not_six_patients():
    found = shift("agenda", "falls", [("p", 3.0, 1.0)] * 6, 0.5)
    assert (found.sessions, found.patients, found.verdict) == (6, 1, "cannot be told")


def test_what_nobody_can_rate():
    assert unratable({"unratable": 3}, 3, 3).verdict == "as expected"
    assert unratable({"unratable": 2, "ok": 1}, 3, 3).verdict == "not as expected"
    assert unratable({"unratable": 2, "error": 1}, 3, 3).verdict == "cannot be told"
    assert unratable({}, 0, 0).verdict == "cannot be told"


def test_an_audit_of_scores_with_repeats_and_gaps():
    """Known answers: the total falls by 2 with padding, in one of two repeats by 4 and in the other not at all."""
    rubric = load_rubric()
    names = [domain.id for domain in rubric.domains]
    originals = [SimulatedSession(f"s{i}", "a", f"p{i}", 0, list(TURNS)) for i in range(6)]
    scores = []
    for one in [*originals, *copies(originals)]:
        for repeat in (0, 1):
            domains = dict.fromkeys(names, 3.0)
            if one.id.endswith("#padded") and repeat:
                domains["agenda"] = domains["homework"] = 1.0
            if one.id.endswith("#no agenda"):
                domains["agenda"] = 1.0
            status = "ok"
            if one.id == "s0#no agenda":
                domains["pacing"], status = None, "unratable"
            scores.append(
                Score(
                    session_id=one.id,
                    arm="a",
                    patient=one.patient,
                    seed=0,
                    judge="j",
                    repeat=repeat,
                    status=status,
                    domains=domains,
                )
            )
    found = {entry["probe"]: entry for entry in audit(originals, scores, rubric)}
    [padded] = found["padded"]["findings"]
    assert (padded["measure"], padded["shift"], padded["before"]) == (TOTAL, -2.0, 33.0)
    assert padded["verdict"] == "as expected"  # within 3.3 of 66 points
    measures = {finding["measure"]: finding for finding in found["no agenda"]["findings"]}
    assert list(measures) == [TOTAL, "agenda", OTHERS]
    assert [measures[name]["sessions"] for name in measures] == [5, 6, 5]
    assert [measures[name]["shift"] for name in measures] == [-2.0, -2.0, 0.0]
    assert measures["agenda"]["verdict"] == measures[OTHERS]["verdict"] == "as expected"
    assert found["no agenda"]["statuses"] == {"unratable": 2, "ok": 10}
    assert found["garbage"]["findings"][0]["verdict"] == "not as expected"
    assert found["lectures"]["findings"][1]["verdict"] == "not as expected"


def test_a_rubric_without_a_domain_has_no_expectation_of_it():
    rubric = load_rubric()
    rubric.domains = [domain for domain in rubric.domains if domain.id != "agenda"]
    originals = [SimulatedSession("s", "a", "p", 0, list(TURNS))]
    domains = {domain.id: 3.0 for domain in rubric.domains}
    scores = [
        Score(session_id=one.id, arm="a", patient="p", seed=0, judge="j", repeat=0, status="ok", domains=dict(domains))
        for one in [*originals, *copies(originals)]
    ]
    found = {entry["probe"]: entry for entry in audit(originals, scores, rubric)}
    assert [finding["measure"] for finding in found["no agenda"]["findings"]] == [TOTAL, OTHERS]
