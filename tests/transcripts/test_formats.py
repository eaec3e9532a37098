"""Every reader: what it takes for which session, compressed or not, and how a format is found out."""

import gzip
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.errors import UserError
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.reading import locate, read, speaker_labels
from cbtrain.transcripts.types import Corpus, Course, Session, Turn
from cbtrain.transcripts.writing import RECORDS, write_sessions

TALK = (Turn("patient", "I feel low."), Turn("therapist", "Since when?"))
MESSAGES = [{"role": "user", "content": "I feel low."}, {"role": "assistant", "content": "Since when?"}]
SHAREGPT = [{"from": "human", "value": "I feel low."}, {"from": "gpt", "value": "Since when?"}]
AUTHOR = {"transcript": "Patient: I feel low.\nTherapist: Since when?", "word_count": 7}


def only(path, **options):
    """Format and the one session of a corpus."""
    corpus = read(path, **options)
    (session,) = corpus.sessions()
    return corpus.format, session


def test_openai_messages(tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "system", "content": "Be kind."}, *MESSAGES], "id": "conv-7"}))
    format, session = only(file)
    assert (format, session.id, session.turns) == ("messages", "conv-7/1", TALK)
    assert session.facts == {"system": "Be kind."}
    assert session.where == f"{file}:1"


def test_message_content_in_parts(tmp_path):
    parts = [{"type": "text", "text": "I feel "}, {"type": "text", "text": "low."}]
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": parts}, MESSAGES[1]]}) + "\n")
    assert only(file)[1].turns == TALK


@pytest.mark.parametrize("layout", ["[%s]", " [ %s ,\n%s]", "%s"])
def test_sharegpt_as_an_array_or_one_object(tmp_path, layout):
    file = tmp_path / "chats.json"
    file.write_text(layout.replace("%s", json.dumps({"conversations": SHAREGPT})))
    corpus = read(file)
    assert corpus.format == "sharegpt"
    assert [session.turns for session in corpus.sessions()] == [TALK] * layout.count("%s")
    ids = ["chats"] if layout == "%s" else [f"chats-{n + 1}" for n in range(layout.count("%s"))]
    assert [course.id for course in corpus.courses] == ids


def test_an_array_larger_than_the_buffer_is_read_item_by_item(tmp_path, monkeypatch):
    monkeypatch.setattr("cbtrain.transcripts.source.CHUNK", 17)
    file = tmp_path / "chats.json"
    file.write_text(json.dumps([{"conversations": SHAREGPT, "id": f"c{n}", "x": "é" * n} for n in range(30)], indent=1))
    corpus = read(file)
    assert [course.id for course in corpus.courses] == [f"c{n}" for n in range(30)]
    assert all(session.turns == TALK for session in corpus.sessions())


def test_labelled_text(tmp_path):
    file = tmp_path / "amara-3.txt"
    file.write_text(
        "Recorded in May\r\n**Counselor:** Hello.\r\nHow are you?\r\n\r\n  [00:12] client: Low.\nCounselor: Since when?\n"
    )
    format, session = only(file)
    assert (format, session.id, session.preamble) == ("text", "amara/3", "Recorded in May")
    assert session.turns == (
        Turn("therapist", "Hello.\nHow are you?"),
        Turn("patient", "Low."),
        Turn("therapist", "Since when?"),
    )


def test_text_with_given_labels(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("Dr. Lee: Hello.\nAmara: Hi.\nClient: is a word here")
    labels = speaker_labels(["Dr. Lee"], ["Amara:"])
    assert only(file, labels=labels)[1].turns == (
        Turn("therapist", "Hello."),
        Turn("patient", "Hi.\nClient: is a word here"),
    )
    with pytest.raises(UserError, match="'Amara' is the label of both"):
        speaker_labels(["Amara"], ["Amara"])


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("amara-1.txt", "amara/1"),
        ("amara_session_12.txt", "amara/12"),
        ("session_2.txt", "ROOT/2"),
        ("07.txt", "ROOT/7"),
        ("lone.txt", "lone/1"),
        ("amara/session 3.txt", "amara/3"),
        ("amara/4.txt.gz", "amara/4"),
        ("site/amara-5.txt", "site/amara/5"),
        ("amara/amara-6.txt", "amara/6"),
        ("amara/intake.txt", "amara/intake/1"),
        ("thomas-1.txt", "thomas/1"),
        ("james_s2.txt", "james/2"),
        ("session_0.txt", "ROOT/0"),
        ("obsession-1.txt", "obsession/1"),
    ],
)
def test_where_a_text_belongs(tmp_path, name, id):
    root = tmp_path / "ROOT"
    file = root / name
    file.parent.mkdir(parents=True)
    with gzip.open(file, "wt") if name.endswith("gz") else file.open("w") as out:
        out.write("Therapist: Hello.")
    assert only(root)[1].id == id


def simulation(root, arm="Arm_A", patient="Ann Lee", number=3, stamp="20241106_221238", text=None):
    folder = root / "CBT_Simulations" / arm / f"CBT_Depression_Simulations_{patient}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"session_{number}_{stamp}.txt"
    file.write_text(
        text
        or f"Session Number: {number}\n\nPatient: Hi.\n\nTherapist: Bye.\n\n"
        "****Session Terminated: Turn Limit Exceeded - Turn count: 51/50****\n\n"
        "Termination Details:\nReason: Turn Limit Exceeded\nDetails: Turn count: 51/50\nand more\n\n\n"
        "Session Summary:\n\nHere it is:\n- sleep\n"
    )
    return file


def test_the_authors_simulations(tmp_path):
    simulation(tmp_path)
    simulation(tmp_path, number=12)
    simulation(tmp_path, arm="Arm_B")
    corpus = read(tmp_path / "CBT_Simulations")
    assert corpus.format == "simulations"
    assert [(c.id, c.patient) for c in corpus.courses] == [("Arm_A/Ann Lee", "Ann Lee"), ("Arm_B/Ann Lee", "Ann Lee")]
    session = corpus.courses[0].sessions[0]
    assert session.turns == (Turn("patient", "Hi."), Turn("therapist", "Bye."))
    assert session.facts == {
        "arm": "Arm_A",
        "stamp": "20241106_221238",
        "ending": "Turn Limit Exceeded",
        "ending_details": "Turn count: 51/50\nand more",
        "summary": "Here it is:\n- sleep",
    }
    assert [s.number for s in corpus.courses[0].sessions] == [3, 12]
    arm = read(tmp_path / "CBT_Simulations" / "Arm_B")
    patient = read(tmp_path / "CBT_Simulations" / "Arm_B" / "CBT_Depression_Simulations_Ann Lee")
    assert [s.id for s in arm.sessions()] == [s.id for s in patient.sessions()] == ["Arm_B/Ann Lee/3"]


def test_simulations_are_read_only_where_they_are_named(tmp_path):
    simulation(tmp_path)
    folder = tmp_path / "Synthetic_Transcripts" / "depression_set_2"
    folder.mkdir(parents=True)
    (folder / "session_1.json").write_text(json.dumps(AUTHOR))
    format, session = only(tmp_path)
    assert (format, session.id) == ("author", "set-2/1")
    assert only(folder)[1].turns == only(tmp_path / "Synthetic_Transcripts")[1].turns == TALK


def test_the_2025_studys_dialogues(tmp_path):
    text = 'Patient: I froze.\n\nTherapist: Let us play it.\nPartner: "Late again?"\nPatient says:\n\nPatient: Yes.\n'
    for arm, number in (("orpo", 10), ("orpo", 9), ("sft", 9)):
        file = tmp_path / "study" / "dialogues" / arm / f"simulation_{number}_clean_dialogue.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "study" / "scores.csv").write_text("session_id\n9\n")
    for path in (tmp_path / "study", tmp_path / "study" / "dialogues"):
        corpus = read(path)
        assert corpus.format == "dialogues"
        found = [(session.id, session.patient, session.facts) for session in corpus.sessions()]
        assert found == [
            ("orpo/9/1", "9", {"arm": "orpo"}),
            ("orpo/10/1", "10", {"arm": "orpo"}),
            ("sft/9/1", "9", {"arm": "sft"}),
        ]
    session = next(read(tmp_path / "study" / "dialogues" / "orpo").sessions())
    acted = Turn("therapist", 'Let us play it.\nPartner: "Late again?"\nPatient says:')
    assert session.turns == (Turn("patient", "I froze."), acted, Turn("patient", "Yes."))
    assert session.source_words == len(text.split())
    (tmp_path / "study" / "dialogues" / "orpo" / "simulation_9_clean_dialogue.txt").write_text("Nobody speaks.")
    with pytest.raises(UserError, match="simulation_9_clean_dialogue.txt: no line begins with 'Patient:'"):
        read(tmp_path / "study")
    assert len(read(tmp_path / "study", skip_bad=True).skipped) == 1


def test_compressed_files_read_the_same(tmp_path):
    for name, record in (
        ("a.jsonl", {"schema": "cbtrain.session/1", "course": "a", "session": 1, "turns": [
            {"role": "patient", "text": "I feel low."}, {"role": "therapist", "text": "Since when?"}]}),
        ("b.jsonl", {"messages": MESSAGES}),
        ("c.json", [{"conversations": SHAREGPT}]),
    ):  # fmt: skip
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(json.dumps(record).encode()))
        assert only(tmp_path / f"{name}.gz")[1].turns == TALK
    folder = tmp_path / "depression_set_4"
    folder.mkdir()
    (folder / "session_9.json.gz").write_bytes(gzip.compress(json.dumps(AUTHOR).encode()))
    assert only(folder)[1].id == "set-4/9"


def test_a_folder_of_chat_files_is_one_corpus(tmp_path):
    (tmp_path / "meta.json").write_text('{"name": "x"}')
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"messages": MESSAGES}))
    corpus = read(tmp_path)
    assert [course.id for course in corpus.courses] == ["a-1", "b-1"]
    (note,) = corpus.notes
    assert note == "1 files passed over (a JSON object with the keys name), the first: meta.json"


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_text("Therapist: Hello.", encoding="utf-8-sig")
    assert only(tmp_path / "a.txt")[1].turns == (Turn("therapist", "Hello."),)
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": MESSAGES}), encoding="utf-8-sig")
    assert only(tmp_path / "a.jsonl")[1].turns == TALK


def test_a_format_can_be_chosen(tmp_path):
    (tmp_path / "notes.dat").write_text("Therapist: Hello.")
    with pytest.raises(UserError, match="no known corpus layout"):
        locate(tmp_path / "notes.dat")
    assert only(tmp_path / "notes.dat", format="text")[0] == "text"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"messages": "x"}, "no list of turns under 'messages'"),
        ({"messages": ["x"]}, "1 texts, and 'role' is not a list of as many speakers"),
        (
            {"messages": [MESSAGES[0], {"role": "tool", "content": "x"}]},
            r"speaker 'tool' is neither patient nor therapist; who speaks here: user \(3\), assistant \(2\), tool \(1\)",
        ),
        ({"messages": [{"role": "user", "content": True}]}, "message 1 is not a text"),
        ({"messages": [{"role": "user"}]}, "message 1 has no text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "message 1 has parts that are not text"),
        ({"messages": MESSAGES, "session": True}, "session True is not a number"),
        ({"messages": MESSAGES, "session": -1}, "session -1 is not a number"),
        ({"messages": MESSAGES, "facts": {"a": 1}}, "facts are not texts"),
        ({"messages": MESSAGES, "patient": [3]}, "patient is not a text"),
    ],
)
def test_a_bad_record_is_named_and_can_be_skipped(tmp_path, record, message):
    file = tmp_path / "chats.jsonl"
    good = {"messages": MESSAGES, "course": "good"}
    file.write_text("\n".join(json.dumps(line) for line in (good, record, {**good, "session": 2})))
    with pytest.raises(UserError, match=f"chats.jsonl:2: {message}.*--skip-bad"):
        read(file)
    corpus = read(file, skip_bad=True)
    assert [session.number for session in corpus.sessions()] == [1, 2]
    assert len(corpus.skipped) == 1


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
turn = st.builds(Turn, st.sampled_from(["patient", "therapist"]), text, st.sampled_from([1.0, 1.0, 0.0, 0.5]))
facts = st.dictionaries(st.sampled_from(["system", "ending", "arm", "Über"]), text, max_size=3)


@st.composite
def corpora(draw):
    courses = []
    for course in draw(st.lists(name, min_size=1, max_size=4, unique=True)):
        numbers = draw(st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True).map(sorted))
        patient, profile = draw(st.sampled_from(["", "p"])), draw(st.booleans())
        sessions = tuple(
            Session(
                course,
                number,
                tuple(draw(st.lists(turn, max_size=4))),
                patient=patient,
                preamble=draw(text),
                facts=draw(facts),
            )
            for number in numbers
        )
        made = Profile(course=course, name=draw(text), brief=draw(text), characteristics={"Age": [draw(text)]})
        courses.append(Course(course, sessions, made if profile else None))
    return Corpus("x", "cbtrain", tuple(courses))


def stripped(session):
    """As other layouts are read: without blanks around what somebody says."""
    facts = {name: value.strip() if name == "system" else value for name, value in session.facts.items()}
    return replace(session, turns=tuple(replace(t, text=t.text.strip()) for t in session.turns), facts=facts)


@pytest.mark.parametrize("layout", RECORDS)
@given(corpora(), st.sampled_from(["folder", "file.jsonl", "file.jsonl.GZ"]))
def test_what_is_written_reads_back_the_same(layout, corpus, target):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / target
        profiles = [course.profile for course in corpus.courses if course.profile]
        assert write_sessions(corpus.sessions(), profiles, path, layout) == len(list(corpus.sessions()))
        if not any(session.turns for session in corpus.sessions()):
            with pytest.raises(UserError, match="no turn in any session"):
                read(path)
            return
        again = read(path)
    assert again.format == layout
    expected = list(corpus.sessions())
    assert list(again.sessions()) == (expected if layout == "cbtrain" else list(map(stripped, expected)))
    if target == "folder":
        assert [c.profile for c in again.courses] == [c.profile for c in corpus.courses]


def test_compressed_output_is_the_same_bytes_each_time(tmp_path):
    sessions = list(read("sample").sessions())
    for file in ("a.jsonl.gz", "b.jsonl.gz"):
        write_sessions(sessions, [], tmp_path / file)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_old_line_ends_are_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"Client: Hi.\rTherapist: Yes?\r")
    assert [turn.role for turn in only(tmp_path / "a.txt")[1].turns] == ["patient", "therapist"]


def test_a_first_record_of_metadata_is_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"version": 2}\n' + json.dumps({"messages": MESSAGES}))
    corpus = read(tmp_path / "a.jsonl", skip_bad=True)
    assert (corpus.format, len(corpus.courses), len(corpus.skipped)) == ("messages", 1, 1)
