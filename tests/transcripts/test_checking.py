"""Every kind of irregularity, planted and found where it was planted; and what is regular raises nothing."""

import pytest

from cbtrain.transcripts.checking import KINDS, check
from cbtrain.transcripts.preference import pair_session
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.types import Session, Turn

P, T = "patient", "therapist"
PROFILE = {"c": Profile(course="c", name="Priya Rao", brief="You are Priya.")}
SUMMARY = (
    "Session Summary:\n- Main topics: sleep, worry about work and the week with her sister\n"
    "- Techniques: a thought record on the meeting with the manager\n- Homework: a walk on three mornings before work"
)
PASTED = "Hi, I'm back. Here is the summary:\n" + SUMMARY.partition("\n")[2] + "\nIt was a long week for me. " * 8


def session(number, *turns, **more):
    return Session("c", number, tuple(Turn(role, text) for role, text in turns), f"c.jsonl:{number}", **more)


def pair(number, *said):
    """A pair of the last two texts, which answer the others."""
    *prompt, chosen, rejected = said
    turns = [(P if index % 2 == 0 else T, text) for index, text in enumerate(prompt)]
    return pair_session(session(number, *turns), [Turn(T, chosen)], [Turn(T, rejected)])


def regular(number, pasted="Hi, I am here."):
    """A session in which nothing is irregular; its words are its own."""
    talk = " ".join(f"word{number}x{i}" for i in range(40))
    return session(number, (P, pasted), (T, f"What happened? {talk}"), (P, "I slept."), (T, f"Bye.\n\n{SUMMARY}"))


def kinds(*sessions):
    return [(f.kind, f.session, f.turn) for f in check(sessions, PROFILE)]


def test_regular_sessions_raise_nothing():
    assert kinds(regular(1), regular(2, PASTED), regular(3, PASTED)) == []


PLANTED = {
    "no_turns": ([session(1)], None),
    "one_speaker": ([session(1, (P, "Hello?"))], None),
    "inner_label": ([session(1, (P, "Hi."), (T, "Well.\nPriya: I fail."))], 2),
    "unknown_label": ([session(1, (P, "Hi.\nMother: a\nMother: b"), (T, "Yes."), (P, "So.\nMother: c"))], 1),
    "exact_duplicate": ([session(1, (P, "a b c"), (T, "d e f")), session(2, (P, "A b  c"), (T, "d e f"))], None),
    "near_duplicate": ([regular(1), session(2, *((t.role, t.text) for t in regular(1).turns[:3]), (T, "Bye."))], None),
    "repeated_speaker": ([session(1, (P, "Hi."), (T, "Yes."), (T, "Go on."))], 3),
    "empty_turn": ([session(1, (P, "Hi."), (T, " \n"))], 2),
    "text_before_first_label": ([session(1, (P, "Hi."), (T, "Yes."), preamble="Tape 3")], None),
    "summary_by_patient": ([session(1, (P, "Hi."), (T, "Yes."), (P, f"Bye.\n{SUMMARY}"))], 3),
    "turns_after_summary": ([session(1, (P, "Hi."), (T, SUMMARY), (P, "Thanks.")), regular(2), regular(3)], 3),
    "missing_summary": ([regular(1), regular(3), session(5, (P, "Hi."), (T, "Bye."))], None),
    "doubled_summary": ([session(1, (P, "Hi."), (T, f"{SUMMARY}\n\n{SUMMARY}"))], 2),
    "summary_in_opening": ([session(1, (P, f"Hi.\n{SUMMARY}"), (T, "Yes."))], 1),
    "residue": ([session(1, (P, "Hi."), (T, "Yes.\nHere is part 2 of the CBT session:\nGo on."))], 2),
    "opens_with_therapist": ([session(1, (T, "Welcome."), (P, "Hi."))], 1),
    "summary_mismatch": ([regular(1), regular(2, "Last time we spoke of gardens and the sea. " * 12)], 1),
    "thinking": ([session(1, (P, "Hi."), (T, "Yes."), (P, "So."), (T, "<think>They are sad."))], 4),
    "markup": ([session(1, (P, "Hi &amp; bye."), (T, "Yes."))], 1),
    "transcriber_note": ([session(1, (P, "Hi."), (T, "Yes (sighs), I [inaudible 00:12] it."))], 2),
    "end_marker": ([session(1, (P, "Hi."), (T, "Bye.\nCONVERSATION ENDED"))], 2),
    "shared_prompt": ([pair(1, "Hi.", "Yes?", "No."), pair(2, "hi. ", "Go on.", "Bye.")], None),
    "nested_prompt": ([pair(1, "Hi.", "Yes?", "No."), pair(2, "Hi.", "Yes?", "I fail.", "At what?", "No.")], None),
    "personal_data": ([session(1, (P, "Hi."), (T, "Write to me at ann.lee@clinic.example.org."))], 2),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_irregularities_are_found_where_they_are(kind):
    sessions, turn = PLANTED[kind]
    found = [f for f in check(sessions, PROFILE) if f.kind == kind]
    assert [(f.turn, f.where) for f in found] == [(turn, found[-1].where)]
    culprit = sessions[0] if kind in ("turns_after_summary",) else sessions[-1]
    assert (found[0].session, found[0].where) == (culprit.id, culprit.where)


def test_every_kind_is_planted_or_comes_from_reading():
    assert set(PLANTED) | {"unreadable"} == set(KINDS)


def test_personal_data_is_masked():
    (found,) = [f for f in check(PLANTED["personal_data"][0], {}) if f.kind == "personal_data"]
    assert found.detail.startswith("e-mail: ann.")
    assert "clinic" not in found.detail


def test_summaries_are_not_missed_where_they_are_no_custom():
    assert kinds(session(1, (P, "Hi."), (T, "Bye.")), session(2, (P, "Hi there."), (T, "Good bye."))) == []


def test_a_summary_on_one_line_is_recognized():
    flat = " ".join(SUMMARY.split("\n"))
    first = session(1, (P, "Hi."), (T, f"Take care. {flat}"))
    assert kinds(first, regular(2, PASTED)) == []


def test_a_gap_between_sessions_is_no_mismatch():
    assert kinds(regular(1), regular(9, "Something else. " * 60)) == []


def test_the_sample_corpus_is_regular():
    corpus = read("sample")
    assert list(check(corpus.sessions(), {c.id: c.profile for c in corpus.courses})) == []
