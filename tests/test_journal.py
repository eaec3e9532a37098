import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.errors import UserError
from cbtrain.eval.rating.judging import Earlier
from cbtrain.eval.simulation.after_session import Answers, dialogue_digest
from cbtrain.eval.simulation.questionnaire import load_questionnaire
from cbtrain.eval.simulation.restoring import restore
from cbtrain.eval.simulation.runner import SimulatedSession, plan_sessions
from cbtrain.journal import Journal, read, with_checksum
from cbtrain.providers.costs.budget import Budget
from cbtrain.providers.costs.ledger import Ledger
from cbtrain.study.evaluation.earlier_runs import earlier_settings
from cbtrain.study.evaluation.protocol import deviations
from cbtrain.study.evaluation.resume import only_raised
from cbtrain.study.evaluation.run_context import BEGUN, PLAN, SETTINGS, SHAPES
from cbtrain.synthesis import write as synthesis


def test_records_are_read_back_in_order(tmp_path):
    with Journal(tmp_path / "new" / "events.jsonl") as journal:
        written = [journal.append("turn", text=f"line\n{i} é", index=i) for i in range(3)]
    assert list(read(tmp_path / "new" / "events.jsonl")) == written
    assert all(record["time"].endswith("+00:00") for record in written)


def test_a_tail_torn_anywhere_costs_only_the_last_record(tmp_path):
    path = tmp_path / "events.jsonl"
    with Journal(path) as journal:
        first, _ = journal.append("a", x=1), journal.append("b", text="é" * 5)
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert list(read(path)) == [first], cut
        with Journal(path) as journal:
            third = journal.append("c")
        repaired = [{"kind": "repaired", "dropped_bytes": cut - start}] if cut > start else []
        got = list(read(path))
        assert (got[0], got[-1]) == (first, third)
        assert [{k: r[k] for k in ("kind", "dropped_bytes")} for r in got[1:-1]] == repaired, cut


def test_damage_before_the_end_is_named(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"kind": "a"}\noops\n{"kind": "b"}\n')
    with pytest.raises(UserError, match=r"events\.jsonl:2: damaged record"):
        list(read(path))
    with pytest.raises(UserError, match="no such journal"):
        list(read(tmp_path / "nothing"))


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "events.jsonl"
    with Journal(path):
        with pytest.raises(UserError, match="another process writes here"):
            Journal(path)
    Journal(path).close()


def test_what_json_has_no_word_for_is_refused_and_leaves_no_trace(tmp_path):
    path = tmp_path / "events.jsonl"
    with Journal(path) as journal:
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.append("a", x=float("nan"))
    assert path.read_bytes() == b""


WRITER = """
import sys
from cbtrain.journal import Journal
journal, i = Journal(sys.argv[1]), 0
while True:
    journal.append("turn", index=i, text="x" * (i * 37 % 3000))
    print(i, flush=True)
    i += 1
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    path = tmp_path / "events.jsonl"
    child = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    acknowledged = [int(child.stdout.readline()) for _ in range(50)]
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in child.stdout.read().split()]
    child.wait()
    indices = [record["index"] for record in read(path)]
    assert indices[: len(acknowledged)] == acknowledged
    with Journal(path) as journal:  # the dead writer's lock is gone
        journal.append("resumed")


USAGE = {"prompt_tokens": 7, "completion_tokens": 3}
SCORE = {"session_id": "ann.base.0", "arm": "base", "patient": "ann", "seed": 0, "judge": "m", "repeat": 0}
QUESTIONNAIRE = load_questionnaire("after-session")
SILENT = dialogue_digest(SimulatedSession("ann.base.0", "base", "ann", 0))
PAID = {"request": 1, "role": "judge"}
RECORDS = [
    (PLAN, {"protocol": {"seed": 7, "judge": {"kind": "cue"}}}),
    (BEGUN, {"settings": {"seed": 7}}),  # of an older version
    (SETTINGS, {"key": "k", "settings": {"seed": 7, "patient": {"sampling": {"max_tokens": 30}}}}),
    ("session_started", {"session": "ann.base.0", "key": "k"}),
    ("turn", {"session": "ann.base.0", "index": 0, "role": "patient", "text": "I feel low.", "facts": {}}),
    ("session_finished", {"session": "ann.base.0", "ending": "max_turns", "error": None}),
    ("summary", {"session": "ann.base.0", "text": "They talked of sleep.", "facts": {}}),
    (
        "questionnaire",
        {"session": "ann.base.0", "questionnaire": QUESTIONNAIRE.digest, "dialogue": SILENT, "status": "ok"}
        | {"answers": {"bond": 3, "own_words": "x"}, "problem": "", "facts": {}},
    ),
    ("rating", {"key": "k", "score": SCORE | {"status": "ok", "domains": {"agenda": 3.0}, "reason": {"agenda": "x"}}}),
    ("rating", {"key": "l", "score": SCORE | {"status": "invalid", "domains": {"agenda": None}, "stopped_at": "a"}}),
    ("audit_text", {"key": "k", "answer": {"turns": ["I am down."]}}),
    ("request_started", {**PAID, "dollars": 0.01, "key": "k"}),
    ("request_ended", {**PAID, "outcome": "answered", "dollars": 0.01, "priced": True, "model": "m", "usage": USAGE}),
    ("request_ended", {**PAID, "outcome": "unknown", "dollars": 0.01, "problem": "cut off"}),
    ("unknown_outcome", {**PAID, "dollars": 0.01, "key": "k"}),
    ("request_reused", {"role": "judge", "key": "k"}),
    ("started", {"config": {}, "profiles": "p"}),
    ("part", {"course": "c", "session": 1, "part": 0, "text": "Patient: x", "problem": "", "attempt": 1}),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def continue_on(path):
    """What evaluations, ratings and syntheses take from their journals."""
    events = list(read(path, SHAPES))
    restore(plan_sessions(["ann"], ["base", "tuned"], 1), events)
    Answers(QUESTIONNAIRE, 80).restore(plan_sessions(["ann"], ["base", "tuned"], 1), events)
    earlier_settings(events)
    for event in events:
        if event["kind"] == SETTINGS:
            only_raised(event["settings"], RECORDS[2][1]["settings"], "patient", "sampling")
    deviations({"seed": 7}, events)
    with Ledger(Budget()) as ledger:
        ledger.resume(events)
    Earlier.read(events)
    for event in read(path, synthesis.SHAPES):
        if event["kind"] == "part" and not event["problem"]:
            synthesis._key_of(event)


@pytest.mark.fault("F12")
@pytest.mark.parametrize(("kind", "fields"), RECORDS)
def test_a_record_without_its_fields_is_one_line(kind, fields, tmp_path_factory):
    """Whatever stands in the place of a field, also inside a score or a usage: one clear line, or it is taken."""
    path = tmp_path_factory.mktemp("journal") / "events.jsonl"

    def written(changed):
        lines = [{"kind": "resumed"}, {"kind": kind, "time": "2026-11-29T09:00:00.000+00:00", **changed}]
        path.write_bytes(b"".join(with_checksum(json.dumps(line).encode()) + b"\n" for line in lines))
        return path

    continue_on(written(fields))
    unneeded = {"facts", "reason", "attempt", "problem", "stopped_at"} | ({"key"} if kind != SETTINGS else set())
    unneeded -= {"facts", "problem"} if kind == "questionnaire" else set()
    shapes = synthesis.SHAPES if kind in ("started", "part") else SHAPES
    for name in fields.keys() - unneeded - ({"settings"} if kind == BEGUN else set()):
        written({key: value for key, value in fields.items() if key != name})
        with pytest.raises(UserError, match=rf"events\.jsonl:2: the record of kind '{kind}' lacks '{name}'"):
            list(read(path, shapes))

    @given(st.data())
    def whatever_stands_there(data):
        changed = dict(fields)
        outer = data.draw(st.sampled_from(sorted(changed)))
        if isinstance(changed[outer], dict) and changed[outer] and data.draw(st.booleans()):
            inner = data.draw(st.sampled_from(sorted(changed[outer])))
            changed[outer] = changed[outer] | {inner: data.draw(JSON)}
        else:
            changed[outer] = data.draw(JSON)
        with contextlib.suppress(UserError):
            continue_on(written(changed))

    whatever_stands_there()


@pytest.mark.fault("F7")
def test_a_changed_letter_anywhere_is_found(tmp_path):
    """Each byte of each line: the record is refused, or is read as it was written (the checksum itself was hit)."""
    path = tmp_path / "events.jsonl"
    with Journal(path) as journal:
        journal.append("turn", session="a", index=0, role="patient", text="I slept 3 hours.")
        journal.append("request_ended", request=1, role="judge", outcome="unknown", dollars=0.25)
        journal.append("resumed")
    whole, before = path.read_bytes(), list(read(path))
    refused, places = 0, range(0, whole.rfind(b"\n", 0, -1), 2)
    for at in places:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with contextlib.suppress(UserError):
            same = [{name: now[name] for name in then} for then, now in zip(before, read(path), strict=True)]
            assert same == before, at
            continue
        refused += 1
    assert refused > 0.9 * len(places)


def test_lines_of_older_versions_have_no_checksum(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"kind": "a", "crc": "no checksum"}\n{"kind": "b"}\n')
    assert [record["kind"] for record in read(path)] == ["a", "b"]


@pytest.mark.fault("F12")
def test_a_turn_that_is_missing_is_named(tmp_path):
    turns = [{"kind": "turn", "session": "ann.base.0", "index": i, "role": "patient", "text": "x"} for i in (0, 2)]
    with pytest.raises(UserError, match=r"session ann\.base\.0: turn 2 is missing"):
        restore(plan_sessions(["ann"], ["base"], 1), turns)
