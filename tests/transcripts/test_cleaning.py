import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.transcripts.cleaning import CHANGES, clean, fingerprint
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.explain import explain
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.types import Corpus, Course, Session, Turn

SWITCHES = [name for name, field in CleaningPolicy.model_fields.items() if field.annotation is bool]
OFF = dict.fromkeys(SWITCHES, False)
PRIYA = Profile(course="c", name="Dr. Priya Rao", brief="You are Priya.")


def corpus(*turns, preamble="", profile=None):
    session = Session("c", 1, tuple(Turn(r, t) for r, t in turns), preamble=preamble)
    return Corpus("x", "x", (Course("c", (session,), profile),))


def cleaned(turns, *, profile=None, preamble="", **only):
    """Turns after cleaning with the named steps alone (all of the default policy if none is named)."""
    policy = CleaningPolicy(**(OFF | only) if only else {})
    result, report = clean(corpus(*turns, preamble=preamble, profile=profile), policy)
    sessions = list(result.sessions())
    return [(t.role, t.text) for t in sessions[0].turns] if sessions else None, report


P, T = "patient", "therapist"


def test_a_closing_summary_under_the_patients_label_becomes_the_therapists():
    turns = [(P, "Hi."), (T, "Hello."), (P, "Bye.\n\nSession Summary:\n- Main topics: sleep")]
    got, report = cleaned(turns, split_summaries=True)
    assert got == [*turns[:2], (P, "Bye."), (T, "Session Summary:\n- Main topics: sleep")]
    assert report.count("summaries_given_to_the_therapist") == 1


@pytest.mark.parametrize(
    "turns",
    [
        [(P, "Here is the summary:\n\nSession Summary:\n- sleep"), (T, "Thanks.")],  # brought along by the patient
        [(P, "Hi."), (T, "Bye.\n\nSession Summary:\n- sleep")],  # where it belongs already
        [(P, "Hi."), (T, "Yes."), (P, "I read the Session Summary: it was long")],  # in mid-sentence
    ],
)
def test_other_summaries_stay_where_they_are(turns):
    got, report = cleaned(turns, split_summaries=True)
    assert got == turns
    assert report.count("summaries_given_to_the_therapist") == 0


def test_residue_of_a_generator_that_wrote_in_parts_is_removed():
    turns = [
        (P, "Hi."),
        (T, "Yes.\n\nHere is part 2 of 4 for the CBT session with Alex:\n"),
        (P, "Here is part of"),
    ]
    got, report = cleaned(turns, remove_residue=True)
    assert got == [(P, "Hi."), (T, "Yes."), (P, "Here is part of")]
    assert report.as_dict()["residue_lines_removed"] == {"times": 1, "sessions": 1, "words_left_out": 12}


def test_empty_turns_go_and_repeated_speakers_are_merged():
    got, report = cleaned([(P, "a"), (T, " "), (P, "b"), (T, "c"), (T, "d")])
    assert got == [(P, "a\n\nb"), (T, "c\n\nd")]
    assert (report.count("empty_turns_dropped"), report.count("turns_merged_into_the_one_before")) == (1, 2)


def test_sessions_and_patients_without_dialogue_are_dropped_and_counted():
    got, report = cleaned([(P, "a")])
    assert got is None
    assert report.count("sessions_dropped_without_dialogue") == report.count("patients_dropped_without_sessions") == 1


def test_a_policy_that_is_off_changes_nothing():
    turns = [(P, "a"), (P, ""), (P, "b\nSession Summary:\nHere is part 2 of the session:")]
    result, report = clean(corpus(*turns), CleaningPolicy(**OFF))
    assert [(t.role, t.text) for s in result.sessions() for t in s.turns] == turns
    assert not report.changes


def test_a_patients_words_under_the_therapists_label_go_back_to_the_patient():
    turns = [
        (P, "Hi."),
        (T, "Shall we start?\n\nPriya: Yes, I slept badly.\n\nNova: What kept you awake?"),
        (P, "Worry."),
    ]
    got, report = cleaned(turns, profile=PRIYA, split_inner_labels=True)
    assert got == [
        (P, "Hi."),
        (T, "Shall we start?"),
        (P, "Yes, I slept badly."),
        (T, "What kept you awake?"),
        (P, "Worry."),
    ]
    assert report.count("turns_split_at_inner_labels") == 1
    assert report.changes[0].note == "at Priya, Nova"


def test_a_dialogue_without_line_breaks_is_told_apart():
    turns = [(P, "Hi."), (T, "How did it go? Patient: It was hard. Therapist: What was hardest?")]
    got, _ = cleaned(turns, split_inner_labels=True)
    assert got == [(P, "Hi."), (T, "How did it go?"), (P, "It was hard."), (T, "What was hardest?")]


@pytest.mark.parametrize(
    "text",
    [
        "A note can say the patient: is tired.",  # in mid-sentence
        'You wrote "Patient: is tired." in it.',  # quoted
        "Front: my thought\nBack: the evidence",  # a card, no speaker
        "Situation: at work\nThoughts: I fail",
        "Priya, how are you? The ratio is 3:1.",
    ],
)
def test_speech_about_labels_is_left_alone(text):
    turns = [(P, "Hi."), (T, text)]
    assert cleaned(turns, profile=PRIYA, split_inner_labels=True)[0] == turns


def test_a_session_under_names_alone_is_rescued():
    got, report = cleaned([], profile=PRIYA, preamble="Priya: I feel low.\n\nNova: Since when?\n\nPriya: May.")
    assert got == [(P, "I feel low."), (T, "Since when?"), (P, "May.")]
    assert report.count("preambles_left_out") == 0


def test_words_that_nobody_said_are_left_out_and_counted():
    got, report = cleaned([(P, "a"), (T, "b")], preamble="Recorded in three parts")
    assert got == [(P, "a"), (T, "b")]
    assert report.as_dict()["preambles_left_out"] == {"times": 1, "sessions": 1, "words_left_out": 4}


def test_earlier_summaries_are_dropped_on_request_only():
    turns = [(P, "Hi."), (T, "Bye.\nSession Summary:\n- one\nSession Summary:\n- two"), (P, "Thanks.")]
    assert cleaned(turns)[0] == turns
    got, report = cleaned(turns, drop_earlier_summaries=True)
    assert got[1] == (T, "Bye.\n\nSession Summary:\n- two")
    assert report.as_dict()["summaries_dropped"] == {"times": 1, "sessions": 1, "words_left_out": 4}


def test_a_repeated_session_is_dropped_and_named():
    one, other = ((Turn(P, "I  feel low."), Turn(T, "Since when?")), (Turn(P, "I feel low."), Turn(T, "since when?")))
    source = Corpus("x", "x", (Course("a", (Session("a", 1, one),)), Course("b", (Session("b", 1, other),))))
    result, report = clean(source, CleaningPolicy())
    assert [course.id for course in result.courses] == ["a"]
    (change,) = [change for change in report.changes if change.kind == "duplicate_sessions_dropped"]
    assert (change.session, change.note) == ("b/1", "the same words as a/1")


def test_every_kind_of_change_is_in_the_report():
    assert set(cleaned([(P, "a"), (T, "b")])[1].as_dict()) == set(CHANGES)


WORDS = ["well", "so", "Session Summary:", "Priya:", "Patient:", "Therapist:", "Nova:", "\n", "done.", "part?", "- one"]
words = st.sampled_from(WORDS)
speech = st.lists(words, max_size=12).map(" ".join).map(lambda text: text.replace(" \n ", "\n"))
plain = st.lists(st.sampled_from([word for word in WORDS if "Summary" not in word]), max_size=12).map(" ".join)
dialogues = st.lists(st.tuples(st.sampled_from([P, T]), speech), max_size=8)
KEEP = CleaningPolicy(drop_sessions_without_dialogue=False)


def said(turns, role=None):
    return Counter(word for speaker, text in turns if role in (None, speaker) for word in text.split())


@given(dialogues, st.sampled_from(["", "well so", "done.\nso", "Priya: well\nNova: so"]))
def test_nothing_disappears_and_speakers_alternate(turns, preamble):
    result, report = clean(corpus(*turns, preamble=preamble, profile=PRIYA), KEEP)
    (session,) = result.sessions()
    after = [(turn.role, turn.text) for turn in session.turns]
    left_out = sum(change.words_left_out for change in report.changes)
    assert said([*turns, (P, preamble)]).total() == said(after).total() + left_out
    assert all(one[0] != other[0] for one, other in pairwise(after))
    assert all(text.strip() for _, text in after)


@given(dialogues)
def test_no_word_of_a_patient_becomes_the_therapists_but_for_closing_summaries(turns):
    result, report = clean(corpus(*turns, profile=PRIYA), KEEP)
    (session,) = result.sessions()
    lost = said(turns, P) - said([(turn.role, turn.text) for turn in session.turns], P)
    if lost:
        assert report.count("summaries_given_to_the_therapist")
        # What left is what stood from a summary's label on, and nothing before one.
        labelled = [text for role, text in turns if role == P and "Session Summary:" in text]
        assert not lost - sum((Counter(text[text.index("Session Summary:") :].split()) for text in labelled), Counter())


@given(st.lists(st.tuples(st.sampled_from([P, T]), plain), max_size=8))
def test_cleaning_what_is_clean_changes_nothing(turns):
    once, _ = clean(corpus(*turns, profile=PRIYA), KEEP)
    twice, report = clean(once, KEEP)
    assert [s.turns for s in twice.sessions()] == [s.turns for s in once.sessions()]
    assert not report.changes


SPOKEN = [
    # however a generator writes the label, the words are the patient's
    "How are you?Patient: Low.",
    "How are you? PATIENT: Low.",
    "How are you? **Patient:** Low.",
    "How are you? Priya: Low.",
    "How are you? Client: Low.",
    "How are you?\nRao: Low.",
    "How are you?\nDr. Rao: Low.",
    "How are you?\nPatient (Priya): Low.",
    "How are you?\n- Patient: Low.",
    "How are you?\n> Patient: Low.",
    "How are you?\n[00:12] Patient: Low.",
    "How are you?\nPatient : Low.",
    'You said "yes." Patient: Low.',
]


@pytest.mark.parametrize("text", SPOKEN)
def test_labels_as_generators_write_them(text):
    got, _ = cleaned([(P, "Hi."), (T, text)], profile=PRIYA, split_inner_labels=True)
    assert got[-1] == (P, "Low.")


def test_a_nickname_is_a_name():
    em = Profile(course="c", name="Emilio Ramirez", brief="", text='Patient Name: Emilio "Em" Ramirez\nBorn in May')
    got, _ = cleaned([(P, "Hi."), (T, "How so?\n\nEm: I failed.")], profile=em)
    assert got == [(P, "Hi."), (T, "How so?"), (P, "I failed.")]


STAYS = [
    "I asked.\nTherapist: call Anna.\nMother: 12",  # a list in the patient's mouth
    "You told me so. Therapist: you are worthless. Me: no.",  # role play
    "Yes. Session Summary: I was sad. And today I feel worse.",
    "Nova: I feel low and want to cry.",
]


@pytest.mark.parametrize("text", STAYS)
def test_a_patients_turn_is_never_given_to_the_therapist(text):
    turns = [(P, "Hi."), (T, "Yes?"), (P, text), (T, "I see.")]
    nova = Profile(course="c", name="Nova Lind", brief="")
    assert cleaned(turns, profile=nova)[0] == turns


def test_a_goodbye_after_the_summary_stays_the_patients():
    turns = [(P, "Hi."), (T, "Yes?"), (P, "Bye.\nSession Summary:\n- sleep\n\nThank you so much, I will try.")]
    got, _ = cleaned(turns)
    assert got[2:] == [(P, "Bye."), (T, "Session Summary:\n- sleep"), (P, "Thank you so much, I will try.")]


def test_a_long_chain_of_labels_is_no_problem():
    got, _ = cleaned([(P, "Hi."), (T, "Patient: " * 3000 + "Low.")], split_inner_labels=True)
    assert got[-1][0] == P
    assert got[-1][1].endswith("Low.")


@pytest.mark.parametrize(
    ("text", "removed"),
    [
        ("Here's Part 2:\nSo.", True),
        ("Here is the second part of the session:\nSo.", True),
        ("[Continued in part 3]\nSo.", True),
        ("(End of part 1)\nSo.", True),
        ("Here is part one of what I wrote about our last session, which hurt:\nSo.", False),
        ("Here is part of the plan:\nSo.", False),
    ],
)
def test_what_is_residue(text, removed):
    got, _ = cleaned([(P, "Hi."), (T, text)], remove_residue=True)
    assert got[1][1] == ("So." if removed else text)


@pytest.mark.parametrize(
    "label",
    ["Session Summary:", "**Session Summary:**", "## Session Summary", "SESSION SUMMARY:", "Summary of Session 3:"],
)
def test_labels_of_summaries(label):
    turns = [(P, "Hi."), (T, "Yes?"), (P, f"Bye.\n{label}\n- sleep")]
    assert cleaned(turns, split_summaries=True)[0][-1] == (T, f"{label}\n- sleep")


def test_explain_shows_both_sides():
    turns = [(P, "Hi."), (T, "Yes?"), (P, "Bye.\nSession Summary:\n- sleep"), (T, "See you.")]
    (session,) = corpus(*turns).sessions()
    found = explain(session, CleaningPolicy(), None)
    assert [(line.side, line.number, line.turn.role) for line in found.lines] == [
        ("same", 1, P),
        ("same", 2, T),
        ("before", 3, P),
        ("before", 4, T),
        ("after", 3, P),
        ("after", 4, T),
    ]
    assert found.lines[-1].turn.text == "Session Summary:\n- sleep\n\nSee you."
    assert [change.kind for change in found.changes] == [
        "summaries_given_to_the_therapist",
        "turns_merged_into_the_one_before",
    ]


def test_explain_says_that_a_session_is_dropped():
    (session,) = corpus((P, "Hello?")).sessions()
    found = explain(session, CleaningPolicy(), None)
    assert [change.kind for change in found.changes] == ["sessions_dropped_without_dialogue"]
    assert [line.side for line in found.lines] == ["before"]
    (session,) = corpus((P, "Hi."), (T, "Yes?")).sessions()
    found = explain(session, CleaningPolicy(), None, {fingerprint(session.turns): "a/1"})
    assert [change.note for change in found.changes] == ["the same words as a/1"]


@pytest.mark.fault("A8")
def test_labels_inside_turns_with_structural_speakers_stay(tmp_path):
    talk = [
        {"role": "user", "content": "Write me a mail."},
        {"role": "assistant", "content": "Counselor: Let us play it.\nClient: I am angry.\nTherapist: Why?"},
    ]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": talk}))
    cleaned, report = clean(read(tmp_path / "a.jsonl"), CleaningPolicy())
    (session,) = cleaned.sessions()
    assert [turn.text for turn in session.turns] == [
        "Write me a mail.",
        "Let us play it.\nClient: I am angry.\nTherapist: Why?",
    ]
    assert report.count("own_labels_removed") == 1
    assert report.count("turns_split_at_inner_labels") == 0


@pytest.mark.fault("A13")
@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>\nThey fear work.\nTherapist: no\n</think>\n\nWhat happened?", "What happened?"),
        ("They fear work.</think>What happened?", "What happened?"),
        ("What happened? <thinking>cut off, without an end", "What happened?"),
        ("[THINK]hm[/THINK]What happened?", "What happened?"),
    ],
)
def test_nothing_of_a_models_thoughts_is_trained(text, left):
    turns = [(P, "Hi."), (T, text), (P, "Bye."), (T, "<think>only a thought")]
    got, report = cleaned(turns)
    assert got == [(P, "Hi."), (T, left), (P, "Bye.")]
    assert report.count("thinking_removed") == 2
    assert report.as_dict()["thinking_removed"]["words_left_out"] >= 3
    assert cleaned(turns, drop_empty_turns=True)[0] == turns  # switched off


@pytest.mark.fault("A10")
@pytest.mark.parametrize(
    ("switch", "text", "left"),
    [
        (
            "strip_markup",
            "<p>Hello &amp; welcome.<br>Sit <3 down</p><p>AT&T</p>",
            "Hello & welcome.\nSit <3 down\nAT&T",
        ),
        (
            "strip_notes",
            "(sighs) I know (laughs), well [crosstalk]. See [1] (below).",
            "I know, well. See [1] (below).",
        ),
        ("strip_end_markers", "Bye.\n**End of Session**\n[END]", "Bye."),
    ],
)
def test_what_nobody_said_is_stripped_on_request(switch, text, left):
    turns = [(P, "Hi."), (T, text)]
    assert cleaned(turns)[0] == turns
    got, report = cleaned(turns, **{switch: True})
    assert got == [(P, "Hi."), (T, left)]
    assert [change.kind for change in report.changes] == [
        {"strip_markup": "markup_stripped", "strip_notes": "notes_stripped"}.get(switch, "end_markers_stripped")
    ]


@pytest.mark.parametrize(
    "text", ["(I sigh a lot)", "It is bad (crying, no sleep).", "<NAME> <3 &c.", "The session ended badly."]
)
def test_speech_is_no_mark(text):
    turns = [(P, "Hi."), (T, text)]
    assert cleaned(turns, strip_markup=True, strip_notes=True, strip_end_markers=True)[0] == turns
