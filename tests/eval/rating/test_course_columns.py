"""Columns of a table of scores about sessions and patients: written where known, read from any spreadsheet."""

import pytest
from scored import score_of

from cbtrain.errors import UserError
from cbtrain.eval.analysis.score_tables import read_ratings
from cbtrain.eval.analysis.sessions import session_outcomes
from cbtrain.eval.rating.scores import is_score, read_scores_csv, write_scores_csv
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.simulation.slots import MOST_SEEDS, seed_in, slot_of
from cbtrain.study.evaluation.scores import as_transcripts, drop_changing_columns, records
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.types import Turn
from cbtrain.transcripts.writing import write_sessions

MARA = {"severity": "severe", "engagement": "low", "style": "plain", "risk": "past attempt"}
TURNS = [Turn("patient", "Hm."), Turn("therapist", "Yes?")]


def session(number=0, simulator="", columns=None, patient="mara", seed=0):
    name = f"{patient}.base.{simulator}.{number}.{seed}"
    place = {"number": number, "simulator": simulator, "columns": dict(columns or {})}
    return SimulatedSession(name, "base", patient, seed, list(TURNS), "patient_end", **place)


SESSIONS = [
    session(4, "gpt", MARA),
    session(4, "llama", MARA),
    session(8, "gpt", MARA, seed=1),
    session(8, "gpt", MARA),
    session(18, patient="tom"),
]


def of(held, **domains):
    points = domains or {"agenda": 3.0}
    return score_of(held, points).placed_as(held)


def test_what_is_known_survives_the_table(tmp_path):
    scores = [of(held) for held in SESSIONS]
    write_scores_csv(scores, tmp_path / "s.csv")
    head, first, *_, last = (tmp_path / "s.csv").read_text().splitlines()
    optional = "session,phase,simulator,severity,engagement,style,risk"
    assert head == f"session_id,arm,patient,seed,{optional},judge,repeat,status,agenda,total"
    assert ",0,4,initial,gpt,severe,low,plain,past attempt,j," in first
    assert ",0,18,termination,,,,,,j," in last
    assert read_scores_csv(tmp_path / "s.csv") == scores
    ratings = read_ratings(tmp_path / "s.csv")
    assert list(ratings.session) == [held.slot for held in SESSIONS]
    assert len(set(ratings.sessions)) == 5
    assert (list(ratings.number), list(ratings.seed)) == ([4, 4, 8, 8, 18], [0, 0, 1, 0, 0])
    assert ratings.moderators == {name: {"mara": value} for name, value in MARA.items()}
    only_severity = [of(session(columns={"severity": "mild"})), of(session(patient="tom"))]
    write_scores_csv(only_severity, tmp_path / "one.csv")
    assert (tmp_path / "one.csv").read_text().startswith("session_id,arm,patient,seed,severity,judge,")
    assert list(read_ratings(tmp_path / "one.csv").session) == [0, 0]


def test_a_domain_may_have_the_name_of_a_column(tmp_path):
    scores = [of(session(columns=MARA), engagement=2.5, risk=1.0)]
    write_scores_csv(scores, tmp_path / "s.csv")
    assert "patient_engagement,style,patient_risk,judge" in (tmp_path / "s.csv").read_text()
    assert read_scores_csv(tmp_path / "s.csv") == scores
    write_scores_csv([of(session(), engagement=2.5, risk=1.0)], tmp_path / "old.csv")
    (old,) = read_scores_csv(tmp_path / "old.csv")
    assert (old.domains, old.columns) == ({"engagement": 2.5, "risk": 1.0}, {})


def table(tmp_path, optional, *rows):
    head = f"session_id;arm;patient;seed;judge;repeat;status;agenda;total;{optional}"
    (tmp_path / "u.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    return tmp_path / "u.csv"


def test_a_users_spreadsheet_is_read(tmp_path):
    rows = [
        "a;x;p1;0;j;0;ok;2,5;2,5;4.0; Initial ;Severe",
        "b;x;p2;0;j;0;ok;3;3;;middle;very bad",
        "c;x;p3;0;j;0;ok;3;3;;;",
    ]
    ratings = read_ratings(table(tmp_path, "session;phase;severity", *rows))
    assert list(ratings.number) == [4, 8, 0]
    assert ratings.moderators == {"severity": {"p1": "severe", "p2": "very bad"}}
    guessed, unknown = ratings.notes
    assert guessed.startswith("1 rows name a phase and no session: the first of the phase is taken")
    assert unknown.startswith("severity 'very bad': none of mild, moderate, severe")


@pytest.mark.parametrize(
    ("optional", "cells", "problem"),
    [
        ("session;phase", ["2;middle"], r":2: phase: session 2 is in assessment, not in middle"),
        ("phase", ["late"], r":2: phase: 'late' is none of assessment, initial, middle, termination"),
        ("session", ["2000000"], r":2: session 2000000 is too large"),
        ("session", ["one"], r":2: session: 'one' is not a whole number"),
        ("severity", ["mild", "severe"], r"patient p has severity 'mild' and 'severe'"),
        ("severity;patient_severity", ["mild;mild"], r"columns 'severity' and 'patient_severity' say the same"),
        ("session;simulator", ["4;gpt", "4;gpt"], r"session seed 0, session 4, simulator gpt of patient p with x occurs"),
    ],
)  # fmt: skip
def test_contradictions_are_one_line(tmp_path, optional, cells, problem):
    seed = "0" if "simulator" in optional else "{}"
    rows = [f"{row}s;x;p;{seed.format(row)};j;0;ok;3;3;{text}" for row, text in enumerate(cells)]
    rows = [row.replace("1s;", "0s;") for row in rows] if "simulator" in optional else rows
    with pytest.raises(UserError, match=problem):
        read_ratings(table(tmp_path, optional, *rows))


def test_transcripts_carry_them_there_and_back(tmp_path):
    write_sessions(as_transcripts(SESSIONS), [], tmp_path / "sessions.jsonl")
    there = list(read(str(tmp_path / "sessions.jsonl")).sessions())
    assert len({one.id for one in there}) == len(SESSIONS)
    assert sorted(one.number for one in there) == [4, 4, 8, 8, 18]
    back = {one.id: one for one in records(there)}
    for held in SESSIONS:
        one = back[held.id]
        fields = ("arm", "patient", "seed", "number", "simulator", "columns", "slot")
        assert [getattr(one, name) for name in fields] == [getattr(held, name) for name in fields]
    assert session_outcomes(there).keys() == {("base", held.patient, held.slot) for held in SESSIONS}
    plain = next(as_transcripts([session(seed=2)]))
    assert (plain.id, set(plain.facts)) == ("base/mara/3", {"arm", "ending", "id", "seed"})


def test_a_severity_that_was_measured_anew_is_left_out():
    held = [session(1, columns=MARA), session(2, columns={**MARA, "severity": "mild"}), session(1, patient="tom")]
    assert drop_changing_columns(held) == ["severity of 1 patients, whose sessions have several values"]
    assert "severity" not in held[0].columns | held[1].columns
    assert held[0].columns["risk"] == "past attempt"


def test_a_journal_keeps_them_and_older_ones_are_read():
    record = of(SESSIONS[0]).record()
    assert is_score(record)
    assert not is_score(record | {"columns": {"severity": 3}})
    assert not set(of(session()).record()) & {"number", "simulator", "columns"}


def test_a_slot_holds_seed_number_and_simulator():
    places = [(seed, number, name) for seed in (0, 1, 99) for number in (0, 1, 4, 20) for name in ("", "gpt", "llama")]
    slots = {slot_of(*place): place for place in places}
    assert len(slots) == len(places)
    assert all(seed_in(slot, number, name) == seed for slot, (seed, number, name) in slots.items())
    assert slot_of(MOST_SEEDS + 3) == MOST_SEEDS + 3
