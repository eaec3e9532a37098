import json

import pytest

from cbtrain.errors import UserError
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.stats import stats
from cbtrain.transcripts.types import Turn

LINE = {
    "schema": "cbtrain.session/1",
    "course": "a",
    "session": 1,
    "turns": [{"role": "patient", "text": "Hello."}, {"role": "therapist", "text": "Welcome."}],
}


def write(folder, *lines):
    folder.mkdir(exist_ok=True)
    (folder / "sessions.jsonl").write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    )
    return folder


def author(root, transcripts, profile=None):
    folder = root / "Synthetic_Transcripts" / "depression_set_3"
    folder.mkdir(parents=True)
    for number, text in transcripts.items():
        (folder / f"session_{number}.json").write_text(json.dumps({"transcript": text, "word_count": 0}))
    if profile:
        (folder / "patient_profile.json").write_text(json.dumps(profile))
    simulated = root / "CBT_Simulations" / "arm"
    simulated.mkdir(parents=True)
    (simulated / "session_1.txt").write_text("Patient: never read me")
    return root


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{oops", r"sessions\.jsonl:2: malformed JSON"),
        ("[1]", r"sessions\.jsonl:2: an array, not a JSON object"),
        (LINE | {"schema": "cbtrain.session/9"}, r"sessions\.jsonl:2: schema 'cbtrain.session/9'"),
        (LINE | {"session": 2, "colour": 1}, r"sessions\.jsonl:2: colour: unknown key"),
        (LINE | {"session": -1}, r"sessions\.jsonl:2: session: "),
        (LINE | {"session": 2, "turns": [{"role": "doctor", "text": "x"}]}, r"sessions\.jsonl:2: turns\.0\.role"),
        (LINE, r"sessions\.jsonl:2: session 1 of course 'a' is already at .*sessions\.jsonl:1"),
    ],
)
def test_malformed_lines_are_named(tmp_path, bad, message):
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "c", LINE, bad))


def test_unusable_paths_are_named(tmp_path):
    with pytest.raises(UserError, match="nothing: no such file or folder"):
        read(tmp_path / "nothing")
    with pytest.raises(UserError, match="no known corpus layout"):
        read(tmp_path)
    with pytest.raises(UserError, match="unknown format 'cvs'"):
        read("sample", "cvs")
    with pytest.raises(UserError, match="no sessions in it"):
        read(write(tmp_path / "c"))
    (tmp_path / "c" / "sessions.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match=r"sessions\.jsonl:1: not UTF-8"):
        read(tmp_path / "c")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UserError, match="no known corpus layout"):
        read(tmp_path / "folder.jsonl")


def test_author_repository(tmp_path):
    transcripts = {
        10: "Patient: Second.\nStill the patient.\n\nTherapist: Yes: Patient: not a label\nPatient: bye",
        2: "Intro that nobody said\nPatient: First.\nTherapist: Hm.",
        3: "Jamie: unlabelled\nNova: too",
    }
    profile = {"profile": "Patient Profile: Alex Doe (they/them)\n\nBackstory: …", "characteristics": {"Age": "26-35"}}
    corpus = read(author(tmp_path, transcripts, profile))
    (course,) = corpus.courses
    assert (course.id, corpus.format) == ("set-3", "author")
    assert [s.number for s in course.sessions] == [2, 3, 10]
    assert course.sessions[2].turns == (
        Turn("patient", "Second.\nStill the patient."),
        Turn("therapist", "Yes: Patient: not a label"),
        Turn("patient", "bye"),
    )
    assert course.sessions[1].turns == ()
    assert course.profile.name == "Alex Doe"
    assert course.profile.brief.startswith("You are Alex Doe")
    counts = stats(corpus)
    assert (counts["sessions"], counts["therapist_turns"], counts["sessions_without_turns"]) == (3, 2, 1)
    assert counts["words"] == sum(len(t.split()) for t in transcripts.values())


def test_malformed_author_files_are_named(tmp_path):
    root = author(tmp_path, {1: "Patient: x"})
    file = root / "Synthetic_Transcripts" / "depression_set_3" / "session_1.json"
    file.write_text('{"transcript": \n oops}')
    with pytest.raises(UserError, match=r"session_1\.json:2: malformed JSON"):
        read(root)
    file.write_text("{}")
    with pytest.raises(UserError, match=r"session_1\.json: transcript: missing"):
        read(root)


def test_the_sample_corpus_is_what_it_says():
    corpus = read("sample")
    assert len(corpus.courses) >= 6
    for course in corpus.courses:
        assert [session.phase for session in course.sessions] == ["assessment", "middle", "termination"]
        assert course.profile.name
        assert course.profile.brief.startswith("You are ")
        for session in course.sessions:
            assert len(session.turns) >= 25
            assert [t.role for t in session.turns] == ["patient", "therapist"] * (len(session.turns) // 2)
            assert all(t.text.strip() for t in session.turns)
    texts = [turn.text for session in corpus.sessions() for turn in session.turns]
    assert len(set(texts)) == len(texts)


def test_the_sample_answers_suicidal_thoughts_as_good_practice_demands():
    (session,) = [s for s in read("sample").sessions() if s.id == "daniel/9"]
    disclosed = next(i for i, t in enumerate(session.turns) if t.role == "patient" and "about dying" in t.text)
    reply = " ".join(t.text.lower() for t in session.turns[disclosed:] if t.role == "therapist")
    for needed in ("suicid", "plan", "crisis line", "emergency", "marisol", "tonight", "not a crisis service"):
        assert needed in reply, needed
