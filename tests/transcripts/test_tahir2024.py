"""The study's own public corpus, where it is at hand: the counts that are on record."""

from collections import Counter
from itertools import pairwise
from statistics import median

import pytest
from places import TAHIR2024, needs_tahir2024

from cbtrain.transcripts.checking import check
from cbtrain.transcripts.cleaning import RESIDUE, clean
from cbtrain.transcripts.config import CleaningPolicy, SplitConfig
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.split import split
from cbtrain.transcripts.stats import stats
from cbtrain.transcripts.summary import closing_summaries

pytestmark = needs_tahir2024


@pytest.fixture(scope="module")
def corpus():
    return read(TAHIR2024)


def test_counts_as_labelled(corpus):
    assert stats(corpus) == {
        "patients": 48,
        "courses": 48,
        "sessions": 960,
        "turns": 51_925,
        "therapist_turns": 26_125,
        "patient_turns": 25_800,
        "ignored_turns": 0,
        "words": 3_242_788,
        "characters": 19_635_958,
        "sessions_with_repeated_speaker": 583,
        "sessions_without_turns": 1,
        "repeated_openings": 17,
    }


def test_every_patient_has_a_name_and_a_brief(corpus):
    for course in corpus.courses:
        assert course.profile.name != course.id
        assert 2 <= len(course.profile.name) <= 40
        assert len(course.profile.brief.split()) <= 60
        assert [session.number for session in course.sessions] == list(range(1, 21))


def test_cleaning_leaves_strictly_alternating_sessions_and_every_word_accounted_for(corpus):
    cleaned, report = clean(corpus, CleaningPolicy())
    assert {kind: (c["times"], c["sessions"]) for kind, c in report.as_dict().items() if c["times"]} == {
        "turns_split_at_inner_labels": (14, 6),
        "residue_lines_removed": (41, 37),
        "summaries_given_to_the_therapist": (263, 263),
        "empty_turns_dropped": (1, 1),
        "turns_merged_into_the_one_before": (848, 584),
    }
    before = {session.id: session for session in corpus.sessions()}
    assert len(list(cleaned.sessions())) == 960  # also the one without a common label
    words = left_out = 0
    for session in cleaned.sessions():
        roles = [turn.role for turn in session.turns]
        assert all(a != b for a, b in pairwise(roles)), session.id
        words += before[session.id].words + len(before[session.id].preamble.split()) - session.words
    left_out = sum(change.words_left_out for change in report.changes)
    assert words == left_out > 500


def test_no_word_of_a_patient_becomes_the_therapists_but_for_closing_summaries(corpus):
    cleaned, _ = clean(corpus, CleaningPolicy())
    after = {session.id: session for session in cleaned.sessions()}
    moved = 0
    for session in corpus.sessions():
        theirs = Counter(word for t in session.turns if t.role == "patient" for word in RESIDUE.sub("", t.text).split())
        still = Counter(word for t in after[session.id].turns if t.role == "patient" for word in t.text.split())
        gone = theirs - still
        summaries = [
            session.turns[index].text[start:]
            for index, start in closing_summaries(session.turns)
            if session.turns[index].role == "patient"
        ]
        assert not gone - Counter(word for text in summaries for word in text.split()), session.id
        moved += bool(gone)
    assert moved == 263


def test_patients_words_under_the_therapists_label_are_the_patients_again(corpus):
    cleaned, _ = clean(corpus, CleaningPolicy())
    found = {session.id: session for session in cleaned.sessions()}
    for session, said in (
        ("set-21/18", "I'm glad we have a plan for today's session."),
        ("set-11/16", "I'm just worried"),
        ("set-30/17", "I tried saying hello to a couple of coworkers"),
    ):
        speakers = {turn.role for turn in found[session].turns if said in turn.text}
        assert speakers == {"patient"}, session
    assert len(found["set-11/1"].turns) == 43
    profiles = {course.id: course.profile for course in corpus.courses}
    left = [f for f in check(cleaned.sessions(), profiles) if f.kind == "inner_label"]
    assert [f.session for f in left] == ["set-11/2"]  # a patient's own name before the patient's own words


def test_every_kind_of_irregularity_is_counted(corpus):
    profiles = {course.id: course.profile for course in corpus.courses}
    found = list(check(corpus.sessions(), profiles))
    counts = Counter(finding.kind for finding in found)
    sessions = Counter(kind for kind, _ in {(finding.kind, finding.session) for finding in found})
    assert {kind: (counts[kind], sessions[kind]) for kind in counts} == {
        "no_turns": (1, 1),
        "text_before_first_label": (1, 1),
        "inner_label": (54, 6),
        "unknown_label": (2, 1),
        "repeated_speaker": (855, 583),
        "empty_turn": (1, 1),
        "summary_by_patient": (263, 263),
        "turns_after_summary": (68, 68),
        "summary_in_opening": (4, 4),
        "residue": (41, 37),
        "transcriber_note": (8, 8),
    }


def test_the_simulations():
    corpus = read(TAHIR2024 / "CBT_Simulations")
    counts = stats(corpus)
    assert (corpus.format, counts["courses"], counts["sessions"]) == ("simulations", 20, 400)
    assert len({course.patient for course in corpus.courses}) == 5
    endings = Counter(session.facts.get("ending") for session in corpus.sessions())
    assert endings["Turn Limit Exceeded"] == 14 + 11 + 8
    turns = {arm: [] for arm in {session.facts["arm"] for session in corpus.sessions()}}
    for session in corpus.sessions():
        turns[session.facts["arm"]].append(len(session.turns))
    medians = {arm.removesuffix(arm[arm.index("_Simulation") :]): median(own) for arm, own in turns.items()}
    assert medians == {"Llama_Finetune": 32, "Llama_Instruct": 16, "Mistral_Finetune": 28, "Mistral_Instruct": 4}
    parts = split(corpus, SplitConfig())
    assert all(
        len({c.patient for c in side} & {c.patient for c in parts.train}) == 0
        for side in (parts.test, parts.validation)
    )
