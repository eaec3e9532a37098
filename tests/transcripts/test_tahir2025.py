"""The 2025 study's dialogues and patients, where they are at hand: as its own table counts them."""

import csv

from places import TAHIR2025, needs_tahir2025

from cbtrain.patients.reading import read_cases
from cbtrain.transcripts.reading import read

pytestmark = needs_tahir2025


def test_turns_and_words_of_every_dialogue_are_those_of_the_table():
    with (TAHIR2025 / "scores/scores.csv").open(newline="") as file:
        rows = {(row["model_type"], row["session_id"]): row for row in csv.DictReader(file)}
    corpus = read(TAHIR2025 / "dialogues")
    sessions = list(corpus.sessions())
    assert (corpus.format, len(corpus.courses), len(sessions), corpus.notes) == ("dialogues", 400, 400, ())
    assert {session.facts["arm"] for session in sessions} == {"llama3_3b_instruct", "orpo", "orpo_no_COT", "sft"}
    columns = ("turn_count", "therapist_turns", "patient_turns", "word_count")
    for session in sessions:
        row = rows[session.facts["arm"], session.patient]
        counted = (len(session.turns), session.count("therapist"), session.count("patient"), session.source_words)
        assert counted == tuple(int(row[name]) for name in columns), session.where


def test_a_dialogue_is_of_the_patient_in_its_place_of_the_file():
    """By what the patients say: their own history is nearer to it than nearly all others."""
    cases = read_cases(TAHIR2025 / "standardized_patient_profiles.json")
    assert len(cases) == 150
    assert {case.demographics["archetype"] for case in cases} == {
        *("The Anxious Fortune-Teller", "The Hopeless Skeptic", "The Intellectualizer", "The Overwhelmed Avoider")
    }
    told = [{word.strip(".,") for word in case.complaint.lower().split() if len(word) > 5} for case in cases]
    places = []
    for session in read(TAHIR2025 / "dialogues/orpo").sessions():
        said = set(" ".join(turn.text.lower() for turn in session.turns if turn.role == "patient").split())
        shares = [len(words & said) / max(len(words), 1) for words in told]
        own = shares[int(session.patient) - 1]
        places.append(sum(share > own for share in shares))
    assert sorted(places)[len(places) // 2] < 15
