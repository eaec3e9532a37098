"""Whatever is wrong with a file is said in one line with its place; nothing else comes out of a reader."""

import gzip
import json
import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.errors import UserError
from cbtrain.transcripts import source
from cbtrain.transcripts.checking import check
from cbtrain.transcripts.cleaning import clean
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.reading import READERS, locate, read
from cbtrain.transcripts.stats import stats
from cbtrain.transcripts.types import Session, Turn
from cbtrain.transcripts.writing import PAIR_RECORDS, RECORDS, write_sessions

LINE = json.dumps(
    {"schema": "cbtrain.session/1", "course": "a", "session": 1, "turns": [{"role": "patient", "text": "Hé."}]},
    ensure_ascii=False,
)
SAID = {"role": "therapist", "text": "Go on."}


def second(number):
    return LINE.replace('"session": 1', f'"session": {number}')


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"\xff\xfe\n", "a.jsonl:2: not UTF-8 text, UTF-16 it seems. Convert it: iconv -f UTF-16"),
        (second(2).encode("latin-1"), "a.jsonl:2: not UTF-8 text. Convert it: iconv -f WINDOWS-1252"),
        (b"[" * 200_000, "a.jsonl:2: "),
        (b'{"turns": ' + b"9" * 5000 + b"}", "a.jsonl:2: "),
        (second(2).replace("H", "\\ud800").encode(), "a.jsonl:2: half of a surrogate pair"),
        (b"17", "a.jsonl:2: not a JSON object"),
        (LINE.encode(), "a.jsonl:2: session 1 of course 'a' is already at .*a.jsonl:1"),
    ],
)
def test_a_bad_line_is_named_and_the_others_can_be_had(tmp_path, bad, message):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join([LINE.encode(), bad, second(3).encode()]))
    with pytest.raises(UserError, match=message):
        read(file)
    corpus = read(file, skip_bad=True)
    assert [session.number for session in corpus.sessions()] == [1, 3]
    assert len(corpus.skipped) == 1


def test_a_line_without_end_is_never_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_RECORD", 1 << 20)
    asked = []
    file = tmp_path / "a.jsonl"
    with file.open("wb") as out:
        out.write(LINE.encode() + b"\n")
        for _ in range(64):
            out.write(b"x" * (1 << 20))
        out.write(b"\n" + second(2).encode())
    real = source.open_file

    def watched(path):
        handle = real(path)
        readline = handle.readline

        class Watch:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                handle.close()

            def readline(self, size):
                asked.append(size)
                return readline(size)

        return Watch()

    monkeypatch.setattr(source, "open_file", watched)
    with pytest.raises(UserError, match="a.jsonl:2: a line of more than 1 MiB"):
        read(file, format="cbtrain")
    assert [s.number for s in read(file, format="cbtrain", skip_bad=True).sessions()] == [1, 2]
    assert max(asked) <= (1 << 20) + 1


def test_a_file_too_large_for_one_session(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_RECORD", 1 << 20)
    (tmp_path / "a.txt").write_text("Therapist: " + "x" * (1 << 20))
    with pytest.raises(UserError, match="a.txt: larger than 1 MiB"):
        read(tmp_path / "a.txt")
    # Compressed it is small: what counts is what comes out.
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"Therapist: " + b"x" * (1 << 20)))
    with pytest.raises(UserError, match="b.txt.gz: larger than 1 MiB"):
        read(tmp_path / "b.txt.gz")
    (tmp_path / "c.json").write_text('[{"conversations": [{"from": "gpt", "value": "%s"}]}]' % ("x" * (3 << 20)))
    with pytest.raises(UserError, match="c.json: an item of more than 1 MiB"):
        read(tmp_path / "c.json", format="sharegpt")


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"no gzip" + data])
def test_damaged_compression(tmp_path, damage):
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(damage(gzip.compress("\n".join(second(n) for n in range(1, 3000)).encode())))
    with pytest.raises(UserError, match=r"a.jsonl.gz: damaged gzip file"):
        read(file)


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="link: a broken link. It points to .*gone, which is not there"):
        locate(tmp_path / "link")
    folder = tmp_path / "depression_set_1"
    folder.mkdir()
    (folder / "session_1.json").symlink_to(tmp_path / "gone.json")
    (folder / "session_2.json").write_text(json.dumps({"transcript": "Patient: Hi."}))
    with pytest.raises(UserError, match="session_1.json: a broken link"):
        read(folder)
    assert [s.number for s in read(folder, skip_bad=True).sessions()] == [2]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "sessions.jsonl").mkdir()
    with pytest.raises(UserError, match="sessions.jsonl: not a readable file"):
        read(tmp_path / "c")


def test_a_truncated_array_ends_with_its_last_whole_item(tmp_path):
    file = tmp_path / "a.json"
    item = json.dumps({"conversations": [{"from": "human", "value": "Hi."}]})
    file.write_text(f"[{item}, {item}, {item[:20]}")
    with pytest.raises(UserError, match=r"a.json\[3\]: malformed JSON"):
        read(file)
    corpus = read(file, skip_bad=True)
    assert (len(corpus.courses), len(corpus.skipped)) == (2, 1)
    file.write_text(f"[{item},")
    with pytest.raises(UserError, match="a.json: ends before its JSON does"):
        read(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[%s]\n[%s]", "a.json: text after the end of the array"),
        ("[%s] and more", "a.json: text after the end of the array"),
        ("[%s %s]", r"a.json\[1\]: no comma after it; it and everything after"),
        ("[%s,,%s]", r"a.json\[2\]: malformed JSON .*everything after it in the array is lost"),
        ("[%s, {oops}, %s]", r"a.json\[2\]: malformed JSON .*everything after it in the array is lost"),
        ("%s\n%s", "a.json: JSON Lines, not one JSON text. Name it .jsonl"),
    ],
)
def test_what_is_lost_of_an_array_is_said(tmp_path, text, message):
    item = json.dumps({"conversations": [{"from": "human", "value": "Hi."}]})
    (tmp_path / "a.json").write_text(text.replace("%s", item))
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.json", format="sharegpt")


def test_a_pipe_is_no_corpus(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(UserError, match="pipe.jsonl: neither a file nor a folder"):
        locate(tmp_path / "pipe.jsonl")


def test_spaces_without_end_take_no_time_without_end():
    turns = (
        Turn("patient", "Hi."),
        Turn("therapist", "x" + " " * 200_000 + "Session Summary, no"),
        Turn("patient", "."),
    )
    sessions = [Session("c", 1, turns)]
    started = time.process_time()
    list(check(sessions, {}))
    assert time.process_time() - started < 5  # it was quadratic: minutes


def test_nothing_is_left_behind_when_reading_fails_while_writing(tmp_path):
    file = tmp_path / "in" / "a.jsonl"
    file.parent.mkdir()
    file.write_text(LINE + "\n{oops")
    for target in ("out", "out.jsonl", "out.jsonl.gz"):
        with pytest.raises(UserError):
            write_sessions(locate(file).sessions(), [], tmp_path / target)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def use_everything(path, format):
    """All that is done with a corpus once it is read."""
    corpus = read(path, format, skip_bad=True)
    pairs = next(corpus.sessions()).preference is not None
    profiles = {course.id: course.profile for course in corpus.courses if course.profile}
    list(check(corpus.sessions(), profiles))
    stats(corpus)
    clean(corpus, CleaningPolicy())
    with tempfile.TemporaryDirectory() as out:
        for layout in PAIR_RECORDS if pairs else RECORDS:
            write_sessions(corpus.sessions(), profiles.values(), Path(out) / layout, layout)


KEYS = (
    "schema course session turns role text messages content conversations from value transcript profile "
    "characteristics facts patient id name prompt chosen rejected weight"
).split()
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=20,
)
known = st.sampled_from(
    [
        LINE,
        json.dumps({"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "\u2028"}]}),
        json.dumps({"conversations": [{"from": "human", "value": "Patient: Hi.\nTherapist: \x00"}]}),
        json.dumps({"transcript": "Patient: Hi.\nTherapist: Hello. Session Summary:\n- x"}),
        json.dumps({"prompt": "Hi.", "chosen": [{"role": "assistant", "content": "Go on."}], "rejected": "No."}),
        json.dumps(
            {"schema": "cbtrain.pair/1", "prompt": [], "chosen": [SAID], "rejected": [{**SAID, "text": "\u2028"}]}
        ),
        "Session Number: 3\n\nPatient: Hi.\nTermination Details:\nReason: x\nDetails: y\n\nSession Summary:\nz",
    ]
)


@st.composite
def broken(draw):
    """Valid content with bytes cut out, doubled or replaced; JSON with wrong types; or noise."""
    kind = draw(st.sampled_from(["noise", "typed", "cut"]))
    if kind == "noise":
        return draw(st.binary(max_size=200))
    if kind == "typed":
        return json.dumps(draw(value)).encode()
    data = bytearray(draw(known).encode())
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        data[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


FILES = {
    "author": "depression_set_1/session_1.json",
    "simulations": "CBT_Simulations/A/CBT_Depression_Simulations_B/session_1_x.txt",
    "dialogues": "arm/simulation_1_clean_dialogue.txt",
    "cbtrain": "sessions.jsonl",
    "pairs": "pairs.jsonl",
    "messages": "a.jsonl",
    "sharegpt": "a.json",
    "records": "a.ndjson",
    "table": "a.csv",
    "text": "a.txt",
}


@pytest.mark.parametrize("format", READERS)
@given(st.lists(broken(), min_size=1, max_size=3), st.booleans(), broken())
def test_no_content_makes_a_reader_fail_with_a_traceback(format, contents, compressed, profile):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / FILES[format]
        file.parent.mkdir(parents=True, exist_ok=True)
        data = b"\n".join(contents)
        if compressed and format != "simulations":
            file.with_name(file.name + ".gz").write_bytes(gzip.compress(data))
        else:
            file.write_bytes(data)
        (file.parent / ("patient_profile.json" if format == "author" else "profiles.jsonl")).write_bytes(profile)
        path = {"author": file.parent, "simulations": Path(folder) / "CBT_Simulations"}.get(format, Path(folder))
        for chosen in (format, "auto"):
            try:
                use_everything(path, chosen)
            except UserError as error:
                assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.fault("B8")
def test_only_a_file_that_is_not_called_json_is_told_to_be(tmp_path):
    for name, hint in (("a.json", "Correct or remove it."), ("a.jsonl", "Name the file .json.")):
        (tmp_path / name).write_text(f"[[{LINE}]]\n")
        with pytest.raises(UserError, match="an array, not a JSON object") as caught:
            list(source.read_records(tmp_path / name))
        assert caught.value.hint == hint
