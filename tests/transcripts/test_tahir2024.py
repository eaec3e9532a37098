"""The study's own public corpus, where it is at hand: the counts that are on record."""

import os
from itertools import pairwise
from pathlib import Path

import pytest

from cbtrain.transcripts.cleaning import clean
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.stats import stats

BESIDE = Path(__file__).resolve().parents[2].parent / "shared/data/tahir2024"
FOLDER = Path(os.environ.get("CBTRAIN_TAHIR2024", BESIDE))

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the corpus of the 2024 study is not here")


@pytest.fixture(scope="module")
def corpus():
    return read(FOLDER)


def test_counts_as_labelled(corpus):
    assert stats(corpus) == {
        "courses": 48,
        "sessions": 960,
        "turns": 51_925,
        "therapist_turns": 26_125,
        "patient_turns": 25_800,
        "words": 3_242_788,
        "sessions_with_repeated_speaker": 583,
        "sessions_without_turns": 1,
    }


def test_every_patient_has_a_name_and_a_brief(corpus):
    for course in corpus.courses:
        assert course.profile.name != course.id
        assert 2 <= len(course.profile.name) <= 40
        assert len(course.profile.brief.split()) <= 60
        assert [session.number for session in course.sessions] == list(range(1, 21))


def test_cleaning_leaves_strictly_alternating_sessions_and_every_word_accounted_for(corpus):
    cleaned, counts = clean(corpus, CleaningPolicy())
    assert counts.sessions_dropped_without_dialogue == 1
    assert counts.summaries_given_to_the_therapist == 263
    assert counts.empty_turns_dropped == 1
    before = {session.id: session for session in corpus.sessions()}
    removed = 0
    for session in cleaned.sessions():
        roles = [turn.role for turn in session.turns]
        assert all(a != b for a, b in pairwise(roles)), session.id
        # No word of a patient becomes the therapist's, but for summaries: those begin with their label.
        gained = therapist_words(session) - therapist_words(before[session.id])
        assert gained <= 0 or any("Session Summary:" in t.text for t in session.turns if t.role == "therapist")
        removed += before[session.id].words - session.words
    assert 41 * 5 < removed < 41 * 20  # the 41 residue lines, and nothing else


def therapist_words(session):
    return sum(len(turn.text.split()) for turn in session.turns if turn.role == "therapist")
