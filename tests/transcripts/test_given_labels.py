"""Speakers' labels given by an option or a map reach check and cleaning as they reach the reader."""

import pytest

from cbtrain.transcripts.checking import check
from cbtrain.transcripts.cleaning import clean
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.reading import read

TEXT = "T: Hello. How was the week?\nC (crying): Bad.\nT: I am sorry. C2: I failed. T: At what? C （叹气）：一切。\n"
TURNS = [
    ("therapist", "Hello. How was the week?"),
    ("patient", "Bad."),
    ("therapist", "I am sorry."),
    ("patient", "I failed."),
    ("therapist", "At what?"),
    ("patient", "一切。"),
]
LABELS = {"T": "therapist", "C": "patient"}
BY_MAP = CorpusMap(therapist=["T:"], patient=["C"])


@pytest.mark.fault("A1")
@pytest.mark.parametrize("given", [{"labels": LABELS}, {"corpus_map": BY_MAP}], ids=["option", "map"])
def test_given_labels_inside_turns_are_found_and_split(tmp_path, given):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    corpus = read(tmp_path / "a.txt", **given)
    findings = list(check(corpus.sessions(), {}, labels=corpus.labels))
    assert [(finding.kind, finding.turn) for finding in findings if finding.kind == "inner_label"] == [
        ("inner_label", 3)
    ] * 3
    cleaned, report = clean(corpus, CleaningPolicy())
    assert [(turn.role, turn.text) for turn in cleaned.courses[0].sessions[0].turns] == TURNS
    assert report.count("turns_split_at_inner_labels") == 1


@pytest.mark.fault("A8")
def test_labels_of_a_column_are_words_inside_its_texts(tmp_path):
    rows = "session_id,speaker,text\n1,C,I got my marks.\n1,T,Read them to me. C: sixty. T: ninety.\n"
    (tmp_path / "a.csv").write_text(rows)
    corpus = read(tmp_path / "a.csv", labels=LABELS)
    assert [f.kind for f in check(corpus.sessions(), {}, labels=corpus.labels) if f.kind == "inner_label"] == []
    cleaned, _ = clean(corpus, CleaningPolicy())
    assert [turn.text for turn in cleaned.courses[0].sessions[0].turns][1] == "Read them to me. C: sixty. T: ninety."
