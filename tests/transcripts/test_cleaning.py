import pytest

from cbtrain.transcripts.cleaning import clean
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.types import Corpus, Course, Session, Turn

OFF = dict.fromkeys(CleaningPolicy.model_fields, False)


def corpus(*turns):
    return Corpus("x", "x", (Course("c", (Session("c", 1, tuple(Turn(r, t) for r, t in turns)),)),))


def cleaned(turns, **only):
    result, counts = clean(corpus(*turns), CleaningPolicy(**(OFF | only) if only else {}))
    sessions = list(result.sessions())
    return [(t.role, t.text) for t in sessions[0].turns] if sessions else None, counts


P, T = "patient", "therapist"


def test_a_closing_summary_under_the_patients_label_becomes_the_therapists():
    turns = [(P, "Hi."), (T, "Hello."), (P, "Bye.\n\nSession Summary:\n- Main topics: sleep")]
    got, counts = cleaned(turns, split_summaries=True)
    assert got == [*turns[:2], (P, "Bye."), (T, "Session Summary:\n- Main topics: sleep")]
    assert counts.summaries_given_to_the_therapist == 1


@pytest.mark.parametrize(
    "turns",
    [
        [(P, "Here is the summary:\n\nSession Summary:\n- sleep"), (T, "Thanks.")],  # brought along by the patient
        [(P, "Hi."), (T, "Bye.\n\nSession Summary:\n- sleep")],  # where it belongs already
        [(P, "Hi."), (T, "Yes."), (P, "I read the Session Summary: it was long")],  # in mid-sentence
    ],
)
def test_other_summaries_stay_where_they_are(turns):
    got, counts = cleaned(turns, split_summaries=True)
    assert got == turns
    assert counts.summaries_given_to_the_therapist == 0


def test_residue_of_a_generator_that_wrote_in_parts_is_removed():
    turns = [
        (P, "Hi."),
        (T, "Yes.\n\nHere is part 2 of 4 for the CBT session with Alex:\n"),
        (P, "Here is part of"),
    ]
    got, counts = cleaned(turns, remove_residue=True)
    assert got == [(P, "Hi."), (T, "Yes."), (P, "Here is part of")]
    assert counts.residue_lines_removed == 1


def test_empty_turns_go_and_repeated_speakers_are_merged():
    got, counts = cleaned([(P, "a"), (T, " "), (P, "b"), (T, "c"), (T, "d")])
    assert got == [(P, "a\n\nb"), (T, "c\n\nd")]
    assert (counts.empty_turns_dropped, counts.turns_merged_into_the_one_before) == (1, 2)


def test_sessions_and_patients_without_dialogue_are_dropped_and_counted():
    got, counts = cleaned([(P, "a")])
    assert got is None
    assert (counts.sessions_dropped_without_dialogue, counts.patients_dropped_without_sessions) == (1, 1)


def test_a_policy_that_is_off_changes_nothing():
    turns = [(P, "a"), (P, ""), (P, "b\nSession Summary:\nHere is part 2 of the session:")]
    result, counts = clean(corpus(*turns), CleaningPolicy(**OFF))
    assert [(t.role, t.text) for s in result.sessions() for t in s.turns] == turns
    assert not any(counts.as_dict().values())
