"""Endings, the runner's supervision, and resumption from the journal."""

import io

import pytest
from lanes import lanes
from rich.console import Console

from cbtrain.eval.simulation.dialogue import Limits, SpeakerStopped, Spoken, hold_session
from cbtrain.eval.simulation.restoring import restore
from cbtrain.eval.simulation.runner import SimulationSettings, plan_sessions, run_sessions, turn_seed
from cbtrain.eval.watching.display import Display
from cbtrain.eval.watching.tally import Tally
from cbtrain.journal import Journal, read
from cbtrain.transcripts.types import Turn


class Scripted:
    """Says ``lines`` in order, for ever the last; an exception in their place is raised."""

    def __init__(self, *lines):
        self.lines, self.seeds = lines, []

    async def speak(self, turns, seed):
        line = self.lines[min(len(self.seeds), len(self.lines) - 1)]
        self.seeds.append(seed)
        if isinstance(line, Exception):
            raise line
        return Spoken(line(turns) if callable(line) else line, {})


def counting(turns):
    return f"turn {len(turns)}"


async def hold(patient, therapist, turns=None, **limits):
    recorded, turns = [], [] if turns is None else turns

    async def record(index, turn, spoken):
        recorded.append((index, turn.role, turn.text))

    limits = Limits(**{"max_turns": 8, "max_words": 1000} | limits)
    ending, error = await hold_session(patient, therapist, turns, limits, seed=lambda i: 100 + i, record=record)
    assert [(r, t) for _, r, t in recorded] == [(t.role, t.text) for t in turns][-len(recorded) or len(turns) :]
    return ending, error, turns


async def test_speakers_alternate_from_the_patient_with_a_seed_for_each_turn():
    patient, therapist = Scripted(counting), Scripted(counting)
    ending, error, turns = await hold(patient, therapist)
    assert (ending, error, len(turns)) == ("max_turns", None, 8)
    assert [t.role for t in turns] == ["patient", "therapist"] * 4
    assert (patient.seeds, therapist.seeds) == ([100, 102, 104, 106], [101, 103, 105, 107])


@pytest.mark.parametrize(
    ("patient", "therapist", "limits", "expected", "length"),
    [
        (Scripted("a", "Goodbye.\n[END]"), Scripted(counting), {}, "patient_end", 3),
        (Scripted("a", "[END]"), Scripted(counting), {}, "patient_end", 2),
        (Scripted(counting), Scripted(counting), {"max_words": 9}, "max_words", 5),
        (Scripted("a", "Bye. [END]", "b [END]"), Scripted(counting), {"min_turns": 5}, "patient_end", 5),
        (Scripted("a", "[END]"), Scripted(counting), {"min_turns": 5}, "provider_error", 2),
        (Scripted(counting), Scripted("Go on."), {}, "repetition", 6),
        (Scripted(counting), Scripted("  "), {}, "empty_turn", 1),
        (Scripted(SpeakerStopped("content_filter", "no")), Scripted("x"), {}, "content_filter", 0),
        (Scripted(counting), Scripted(SpeakerStopped("context_limit", "full")), {}, "context_limit", 1),
    ],
)
async def test_every_ending_has_a_name(patient, therapist, limits, expected, length):
    ending, _, turns = await hold(patient, therapist, **limits)
    assert (ending, len(turns)) == (expected, length)
    assert "[END]" not in " ".join(t.text for t in turns)


def test_arms_of_one_patient_share_their_seeds():
    base, tuned, other = plan_sessions(["p"], ["base", "tuned"], 2)[:3]
    assert (base.arm, tuned.arm, other.seed) == ("base", "tuned", 1)
    assert turn_seed(base, 3, 0) == turn_seed(tuned, 3, 0)
    assert len({turn_seed(s, i, r) for s in (base, other) for i in range(5) for r in (0, 1)}) == 20


async def run(sessions, speakers, path, in_flight=8):
    with Journal(path) as journal:
        await run_sessions(
            sessions, lanes(sessions, speakers), journal, SimulationSettings(in_flight, Limits(6, 1000), seed=0)
        )


@pytest.mark.parametrize("patient", ["", "[END]", SpeakerStopped("budget", "spent")])
async def test_sessions_that_end_before_a_word_is_said(patient, tmp_path):
    sessions, tally, out = plan_sessions(["p", "q"], ["base"], 1), Tally(), io.StringIO()
    with Journal(tmp_path / "events.jsonl") as journal:
        journal.listener = tally.add
        await run_sessions(
            sessions,
            lanes(sessions, lambda session: (Scripted(patient), Scripted(counting))),
            journal,
            SimulationSettings(1, Limits(6, 1000), seed=0),
            Display(Console(file=out, width=200), tally),
        )
    assert all(session.ending and not session.turns for session in sessions)
    assert out.getvalue().count("\n") == 1
    assert "running: 2 of 2 sessions, 0 s so far" in out.getvalue()


async def test_one_broken_session_stops_no_other_and_is_taken_up_again(tmp_path):
    path, arms = tmp_path / "events.jsonl", ["base", "tuned"]
    broken = {"p.base.0": RuntimeError("lost"), "q.tuned.1": SpeakerStopped("provider_error", "HTTP 500")}

    def faulty(session):
        return Scripted(counting, broken.get(session.id, counting)), Scripted(counting)

    sessions = plan_sessions(["p", "q"], arms, 2)
    await run(sessions, faulty, path)
    assert {s.id: s.ending for s in sessions if s.ending != "max_turns"} == {
        "p.base.0": "internal_error",
        "q.tuned.1": "provider_error",
    }
    assert [s.id for s in sessions if s.failed] == ["p.base.0", "q.tuned.1"]

    asked = []

    def sound(session):
        asked.append(session.id)
        return Scripted(counting), Scripted(counting)

    again = plan_sessions(["p", "q"], arms, 2)
    restore(again, list(read(path)))
    assert [len(s.turns) for s in again if s.ending is None] == [2, 2]
    await run(again, sound, path)
    assert asked == ["p.base.0", "q.tuned.1"]
    assert {s.ending for s in again} == {"max_turns"}
    turns = [(e["session"], e["index"]) for e in read(path) if e["kind"] == "turn"]
    assert len(turns) == len(set(turns)) == 8 * 6


async def test_no_session_begins_when_too_many_have_failed_and_begun_ones_come_first(tmp_path):
    begun = []

    def speakers(session):
        begun.append(session.id)
        failing = SpeakerStopped("provider_error", "HTTP 500") if session.patient < "p5" else counting
        return Scripted(failing), Scripted(counting)

    sessions = plan_sessions([f"p{i}" for i in range(10)], ["base"], 1)
    sessions[7].turns = [Turn("patient", "I feel low."), Turn("therapist", "Since when?")]
    with Journal(tmp_path / "e") as journal:
        settings = SimulationSettings(1, Limits(6, 1000), seed=0, max_failures=0.2)
        await run_sessions(sessions, lanes(sessions, speakers), journal, settings)
    assert begun == ["p7.base.0", "p0.base.0", "p1.base.0", "p2.base.0"]
    assert [s.ending for s in sessions] == ["provider_error"] * 3 + [None] * 4 + ["max_turns"] + [None] * 2


async def test_sessions_run_side_by_side_up_to_the_limit(tmp_path):
    import asyncio

    running, most = 0, 0

    class Slow:
        async def speak(self, turns, seed):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            return Spoken(f"{len(turns)}", {})

    await run(plan_sessions([f"p{i}" for i in range(10)], ["base"], 1), lambda s: (Slow(), Slow()), tmp_path / "e", 8)
    assert most == 8


def test_restore_ignores_what_it_does_not_know():
    sessions = plan_sessions(["p"], ["base"], 1)
    restore(sessions, [{"kind": "turn", "session": "other", "index": 0}, {"kind": "resumed"}])
    assert sessions[0].turns == []
    events = [{"kind": "turn", "session": "p.base.0", "index": i, "role": "patient", "text": "x"} for i in (0, 0)]
    restore(sessions, events)
    assert sessions[0].turns == [Turn("patient", "x")]


def test_turns_of_another_branch_are_not_mixed_in():
    """A limit raised, lowered and raised again: each process has gone on from what counted for it."""

    def process(key, *turns):
        yield {"kind": "session_started", "session": "p.base.0", "key": key}
        for index, text in turns:
            role = "therapist" if index % 2 else "patient"
            yield {"kind": "turn", "session": "p.base.0", "index": index, "role": role, "text": text}

    events = [*process("low", (0, "a"), (1, "b")), *process("high", (2, "c"), (3, "d"))]
    events += [*process("low", (2, "x"), (3, "y"), (4, "z"), (5, "w"))]
    events += [{"kind": "session_finished", "session": "p.base.0", "ending": "max_turns", "error": None}]
    high, low = (plan_sessions(["p"], ["base"], 1)[0] for _ in range(2))
    high.key, high.keys, low.key = "high", frozenset({"low"}), "low"
    restore([high], events)
    assert [turn.text for turn in high.turns] == list("abcd")
    assert high.ending is None
    assert restore([low], events) == {"p.base.0": {"high": 2}}
    assert [turn.text for turn in low.turns] == list("abxyzw")
    assert low.ending == "max_turns"


async def test_an_arm_that_fails_stops_no_other(tmp_path):
    def speakers(session):
        return Scripted(counting), Scripted(
            SpeakerStopped("provider_error", "HTTP 404") if session.arm == "gpt" else counting
        )

    sessions = plan_sessions([f"p{i}" for i in range(5)], ["gpt", "local"], 1)
    with Journal(tmp_path / "e") as journal:
        settings = SimulationSettings(1, Limits(4, 1000), seed=0, max_failures=0.2)
        await run_sessions(sessions, lanes(sessions, speakers), journal, settings)
    endings = {arm: [s.ending for s in sessions if s.arm == arm] for arm in ("gpt", "local")}
    assert endings == {"gpt": ["provider_error"] * 2 + [None] * 3, "local": ["max_turns"] * 5}
