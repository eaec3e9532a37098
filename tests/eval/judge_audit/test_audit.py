"""What is made of scores of originals and copies: verdicts, intervals, entries."""

import pytest
from scripted_judges import SESSION

from cbtrain.eval.judge_audit.asked_again import repeat_findings, turned_round
from cbtrain.eval.judge_audit.audit import Asked, Audited, audit, pick
from cbtrain.eval.judge_audit.findings import Scale, interval_of, shift, together, unratable
from cbtrain.eval.judge_audit.impressions import halo_findings
from cbtrain.eval.judge_audit.probes import AS_GIVEN, OTHERS, TOTAL, copies, matching_of
from cbtrain.eval.judge_audit.summary import summary
from cbtrain.eval.judge_audit.writer import materials
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.simulation.runner import SimulatedSession


def test_sessions_are_picked_for_as_many_patients_as_can_be():
    sessions = [SimulatedSession(f"p{p}.{s}", "a", f"p{p}", s, list(SESSION)) for p in range(4) for s in range(5)]
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
        ("same", [2.0, 2.0], "cannot be told"),
        ("same", [2.0] * 3, "not as expected"),
        ("no rise", [2.0] * 6, "not as expected"),
        ("no rise", [-2.0] * 6, "as expected"),
        ("no fall", [-2.0] * 6, "not as expected"),
        ("no fall", [2.0] * 6, "as expected"),
        ("falls", [-2.0, -1.0, -1.0, -2.0, -3.0, -1.0], "as expected"),
        ("falls", [0.0] * 6, "not as expected"),
        ("falls", [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], "not as expected"),
        ("falls", [-0.6, -0.6, -0.6, -0.1, -0.1, -0.1], "cannot be told"),
        ("falls", [-9.0, 8.0, 1.0, -3.0, 2.0, -1.0], "cannot be told"),
        ("falls", [-2.0] * 4, "as expected"),
        ("falls", [-2.0], "cannot be told"),
        ("falls", [], "cannot be told"),
        (None, [-2.0] * 6, None),
    ],
)
def test_verdicts(expected, shifts, verdict):
    pairs = [(f"p{i}", 3.0, 3.0 + value) for i, value in enumerate(shifts)]
    found = shift("agenda", expected, pairs, 0.5, Scale(0, 6, 1 / 6**0.5))
    assert found.verdict == verdict
    if shifts:
        assert found.before == 3.0
        assert found.shift == pytest.approx(sum(shifts) / len(shifts))
        assert found.ci_low is None if len(shifts) < 2 else found.ci_low < found.shift < found.ci_high


def test_few_patients_have_a_wide_interval_and_one_has_one_over_sessions():
    """Two values, 0 and 1: mean 0.5, t(1) = 12.706 times a standard error of 0.5."""
    two = interval_of([("a", 0.0), ("b", 1.0)])
    assert (two.low, two.high) == pytest.approx((0.5 - 6.353, 0.5 + 6.353), abs=1e-3)
    one = interval_of([("a", 0.0), ("a", 1.0)])
    assert (one.low, one.high, one.unit) == (two.low, two.high, "sessions of one patient")
    assert interval_of([("a", 1.0)]).low is None
    # Sessions of a patient that are alike are no new patients.
    doubled = interval_of([("a", 0.0), ("a", 0.0), ("b", 1.0), ("b", 1.0)])
    assert (doubled.low, doubled.high) == pytest.approx((two.low, two.high))
    found = shift("agenda", "falls", [("p", 3.0, 1.0)] * 6, 0.5)
    assert (found.sessions, found.patients, found.verdict) == (6, 1, "cannot be told")


def test_the_interval_covers_the_truth_as_often_as_it_says():
    import numpy as np

    rng = np.random.default_rng(3)
    for patients in (2, 3, 5, 12):
        held = 0
        for _ in range(600):
            own = rng.normal(0, 1, patients)
            found = interval_of((str(p), own[p] + rng.normal()) for p in range(patients) for _ in range(2))
            held += found.low <= 0 <= found.high
        assert 0.925 <= held / 600 <= 0.975, patients


def test_near_the_end_of_a_scale_nothing_is_seen():
    scale = Scale(0, 6, 0.4)
    bottom = [(f"p{i}", 0.5, 0.5) for i in range(6)]
    assert shift("agenda", "falls", bottom, 0.5, scale).verdict == "cannot be told"
    assert shift("agenda", "no fall", bottom, 0.5, scale).verdict == "cannot be told"
    top = [(f"p{i}", 5.8, 5.8) for i in range(6)]
    assert shift("agenda", "no rise", top, 0.5, scale).verdict == "cannot be told"
    assert shift("agenda", "falls", top, 0.5, scale).verdict == "not as expected"


def test_what_nobody_can_rate():
    assert unratable({"unratable": 3}, 3, 3).verdict == "as expected"
    assert unratable({"unratable": 2, "ok": 1}, 3, 3).verdict == "not as expected"
    assert unratable({"unratable": 2, "error": 1}, 3, 3).verdict == "cannot be told"
    assert unratable({}, 0, 0).verdict == "cannot be told"
    assert together(["as expected", None]) == "as expected"
    assert together(["as expected", "cannot be told"]) == together([None]) == "cannot be told"
    assert together(["cannot be told", "not as expected"]) == "not as expected"


def rated(session, rubric, repeat=0, status="ok", **domains):
    values = dict.fromkeys(rubric.ids, 3.0) | domains
    where = {"session_id": session.id, "arm": "a", "patient": session.patient, "seed": 0}
    return Score(**where, judge="j", repeat=repeat, status=status, domains=values)


def audited(rubric, count=6, kinds=("length", "content", "nothing")):
    originals = [SimulatedSession(f"s{i}", "a", f"p{i}", 0, list(SESSION)) for i in range(count)]
    made = copies(originals, materials(originals, rubric), kinds)
    return Audited(originals, made, rubric, matching_of(rubric), kinds)


def test_an_audit_of_scores_with_repeats_and_gaps():
    """Known answers: the total falls by 2 with padding, in one of two repeats by 4 and in the other not at all."""
    rubric = load_rubric()
    subject = audited(rubric, 8)
    first = [rated(session, rubric) for session in subject.originals]
    again = [rated(session, rubric, repeat) for session in subject.originals for repeat in (1, 2)]
    copied = []
    for copy in subject.copies:
        for repeat in (0, 1):
            domains, status = {}, "ok"
            if copy.probe == "padded" and repeat:
                domains = {"agenda": 1.0, "homework": 1.0}
            if copy.probe == "no agenda":
                domains = {"agenda": 1.0}
            if copy.session.id == "s0#no agenda":
                domains, status = domains | {"pacing": None}, "unratable"
            copied.append(rated(copy.session, rubric, repeat, status, **domains))
    asked = Asked(first=first, again=again, copied=copied)
    entries = audit(subject, asked)
    found = {entry["probe"]: entry for entry in entries}
    [padded] = found["padded"]["findings"]
    assert (padded["measure"], padded["shift"], padded["before"]) == (TOTAL, -2.0, 33.0)
    assert padded["per_100_words"] == pytest.approx(-200 / found["padded"]["words_added"])
    assert padded["verdict"] == "as expected"  # within 3.3 of 66 points
    measures = {finding["measure"]: finding for finding in found["no agenda"]["findings"]}
    assert list(measures) == [TOTAL, "agenda", OTHERS]
    assert [measures[name]["sessions"] for name in measures] == [7, 8, 7]
    assert [measures[name]["shift"] for name in measures] == [-2.0, -2.0, 0.0]
    assert measures["agenda"]["verdict"] == measures[OTHERS]["verdict"] == "as expected"
    assert found["no agenda"]["statuses"] == {"unratable": 2, "ok": 14}
    assert found["garbage"]["findings"][0]["verdict"] == "not as expected"
    assert found["lectures"]["findings"][1]["verdict"] == "not as expected"
    lines = {line["kind"]: line for line in summary(entries, {"order": "left out"})}
    assert lines["length"]["verdict"] == "as expected"
    assert lines["content"]["verdict"] == "not as expected"
    assert "as expected: no agenda (agenda −2.00)" in lines["content"]["text"]
    assert (lines["order"]["verdict"], lines["order"]["text"]) == ("not tested", "left out")


def test_a_session_at_the_bottom_is_left_out_by_another_rating_than_the_one_compared():
    rubric = load_rubric()
    subject = audited(rubric, kinds=("content",))
    low = {"s0": 0.0}  # at first; a lucky second rating does not bring it back
    first = [rated(session, rubric, agenda=low.get(session.id, 3.0)) for session in subject.originals]
    again = [rated(session, rubric, 1, agenda=3.0) for session in subject.originals]
    copied = [rated(copy.session, rubric, agenda=1.0) for copy in subject.copies]
    entries = audit(subject, Asked(first=first, again=again, copied=copied))
    found = {entry["probe"]: entry["findings"] for entry in entries}
    agenda = found["no agenda"][1]
    assert (agenda["measure"], agenda["sessions"], agenda["no_room"]) == ("agenda", 5, 1)


def test_a_rubric_without_a_domain_has_no_expectation_of_it():
    rubric = load_rubric()
    rubric = Rubric.model_validate(
        {"name": "r", "minimum": 0, "maximum": 6, "domains": [d for d in rubric.domains if d.id != "agenda"]}
    )
    subject = audited(rubric, 1)
    scores = [rated(session, rubric) for session in subject.originals]
    copied = [rated(copy.session, rubric) for copy in subject.copies]
    found = {entry["probe"]: entry for entry in audit(subject, Asked(first=scores, again=scores, copied=copied))}
    assert [finding["measure"] for finding in found["no agenda"]["findings"]] == [TOTAL]
    assert found["no agenda"]["matched"] == []
    assert found["no agenda"]["findings"][0]["verdict"] is None


def test_orders_are_measured_as_the_judge_gave_the_scores_and_the_rest_as_they_count():
    """A reversed item: an obeying judge gives 6 in both, which adds up to the middle of the scale."""
    domains = [{"id": "agenda"}, {"id": "coldness", "reversed": True}]
    rubric = Rubric.model_validate({"name": "r", "minimum": 0, "maximum": 6, "domains": domains})
    subject = audited(rubric, kinds=("injection", "content"))
    again = [rated(session, rubric) for session in subject.originals]
    copied = [rated(copy.session, rubric, agenda=6.0, coldness=6.0) for copy in subject.copies]
    found = {entry["probe"]: entry for entry in audit(subject, Asked(first=again, again=again, copied=copied))}
    [told] = found["told highest"]["findings"]
    assert (told["measure"], told["shift"], told["verdict"]) == (AS_GIVEN, 3.0, "not as expected")
    [ruined] = found["ruined"]["findings"]
    assert (ruined["measure"], ruined["shift"]) == (TOTAL, 0.0)


def test_repeats_halo_and_order_have_known_answers():
    rubric = load_rubric()
    people = {f"s{i}": f"p{i}" for i in range(8)}
    sessions = [SimulatedSession(name, "a", patient, 0) for name, patient in people.items()]
    first = {s.id: [rated(s, rubric)] for s in sessions}
    again = {s.id: [rated(s, rubric, 1, agenda=3.0 + (-1) ** i)] for i, s in enumerate(sessions)}
    total, sd = repeat_findings(first, again, people, rubric)
    assert (total.shift, total.verdict) == (0.0, "as expected")
    assert sd.value == pytest.approx((8 / 7 / 2) ** 0.5)  # differences of ±1
    assert sd.ci_low < sd.value < sd.ci_high
    one_number = {s.id: [rated(s, rubric, **dict.fromkeys(rubric.ids, float(i % 5)))] for i, s in enumerate(sessions)}
    r, share, _ = halo_findings(one_number, [], people, rubric)
    assert (r.value, share.value, share.verdict) == (pytest.approx(1.0), 1.0, "not as expected")
    assert halo_findings(first, [], people, rubric)[1].verdict == "cannot be told"  # nothing varies
    assert turned_round(rubric).ids == rubric.ids[::-1]
    assert turned_round(turned_round(rubric)).digest == rubric.digest
