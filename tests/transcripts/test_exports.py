"""Transcripts as meeting services, recorders and word processors write them: who says what, and when."""

import json
import zipfile

import pytest

from cbtrain.errors import UserError
from cbtrain.transcripts.exports import documents
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.reading import read, speaker_labels

ID = "2d1b4a30-4f4c-4b3e-8b3e-0123456789ab"
TWO = (["Dr Lee"], ["Amara"])
"""The therapist's and the patient's label."""

EXPORTS = {
    "zoom.vtt": ("WEBVTT\n\n1\n00:00:03.210 --> 00:00:06.330\nDr Lee: Hello.\n\n2\n00:00:07.000 --> 00:00:09.000\namara: Low.\n\n"
        "3\n00:01:09.500 --> 00:01:11.000\nIntern Jo: Note: hm.\n\n4\n00:01:12.000 --> 00:01:13.000\nDr Lee: So: since May?\n",
        "tHello.|pLow.|tSo: since May?", "00:00:03.210 00:00:07.000 00:01:12.000", 1),
    "zoom_captions.txt": ("[Dr Lee] 10:15:03\nHello.\nAnd welcome.\n\n[Amara] 10:15:10\nLow.\n\n[Jo's iPad] 10:15:11\nHm.\n",
        "tHello.\nAnd welcome.|pLow.", "10:15:03 10:15:10", 1),
    "zoom_chat.txt": ("10:15:03 From Dr Lee to Everyone:\n\tHello.\n10:15:10 From  Amara (she/her)  to  Dr Lee (Direct Message):\n\tLow.\n",
        "tHello.|pLow.", "10:15:03 10:15:10", 0),
    "zoom_chat_old.txt": ("10:15:03\t From Dr Lee : Hello.\n10:15:10\t From Amara : Low.\n", "tHello.|pLow.", "10:15:03 10:15:10", 0),
    "zoom_cloud_chat.txt": ("00:58:04\tDr Lee:\tHello.\n00:58:20\tAmara:\tLow, https://a.b: no\n", "tHello.|pLow, https://a.b: no",
        "00:58:04 00:58:20", 0),
    "teams.vtt": (f"WEBVTT\n\n{ID}/12-0\n00:00:00.000 --> 00:00:05.120\n<v Dr Lee>Hello.</v>\n\n{ID}/12-1\n00:00:05.120 --> "
        f"00:00:06.000\n\n{ID}/13-0\n00:00:07.000 --> 00:00:08.000\n<v Amara>Low\nand tired.</v>\n\n00:00:09.000 --> 00:00:10.000\n"
        "<v Jo>Hm.</v>\n", "tHello.|pLow\nand tired.", "00:00:00.000 00:00:07.000", 1),
    "teams_copied.txt": ("Talk-20240101-Meeting Recording\nJanuary 1, 2024, 2:00PM\n30m 12s\n\nDr Lee started transcription\n\nDr Lee   0:05\n"
        "Hello.\n\nAmara   0:12\nLow.\n\nDr Lee stopped transcription\n", "tHello.|pLow.", "0:05 0:12", 0),
    "teams_ranges.txt": ("0:0:0.0 --> 0:0:5.120\nDr Lee\nHello.\n0:0:5.5 --> 0:1:7.1\nAmara\nLow.\n0:2:5.5 --> 0:2:7.1\nJo\nHm.\n",
        "tHello.|pLow.", "0:0:0.0 0:0:5.5", 1),
    "otter.txt": ("SPEAKERS\nDr Lee, Amara\n\nDr Lee  00:05  \nHello.\n\nAmara  1:12:07\nLow.\n\nUnknown Speaker  1:12:09\nHm.\n\n"
        "Transcribed by https://otter.ai\n", "tHello.|pLow.", "00:05 1:12:07", 1),
    "otter.srt": ("1\n00:00:05,000 --> 00:00:07,000\nDr Lee: Hello.\n\n2\n00:00:08,000 --> 00:00:09,000\nAmara: Low.\n",
        "tHello.|pLow.", "00:00:05,000 00:00:08,000", 0),
    "meet.txt": ("Talk (2024-01-03 10:00 GMT) - Transcript\nAttendees\nDr Lee, Amara, Jo\nTranscript\n00:00:00\n\nDr Lee: Hello.\nAmara: Low.\n"
        "Jo: Hm.\n00:05:00\n\nDr Lee: Since when?\nMeeting ended after 00:25:00 👋\nThis editable transcript was computer generated and "
        "might contain errors. People can also change the text after it was created.\n", "tHello.|pLow.|tSince when?",
        "00:00:00 - 00:05:00", 1),
    "meet.sbv": ("00:00:32.521,00:00:35.521\nDr Lee: Hello.\n\n00:00:40.000,00:00:43.000\nAmara: Low.\n", "tHello.|pLow.",
        "00:00:32.521 00:00:40.000", 0),
    "whisperx.srt": ("1\n00:00:05,000 --> 00:00:07,000\n[Dr Lee]: Hello.\n\n2\n00:00:08,000 --> 00:00:09,000\n[Amara]: Low.\n",
        "tHello.|pLow.", "00:00:05,000 00:00:08,000", 0),
    "clock.txt": ("10:15 AM Dr Lee: Hello.\n(10:16 a.m.) Amara: Low.\n10:17 PM - Jo: Hm.\n", "tHello.|pLow.", "10:15_AM 10:16_a.m.", 1),
    "whatsapp.txt": ("[12/05/2024, 10:15:03] Dr Lee: Hello.\n[12/05/2024, 10:16:00] Amara: Low.\nMore.\n", "tHello.|pLow.\nMore.",
        "10:15:03 10:16:00", 0),
    "stamped.txt": ("[00:12] Dr Lee: Hello.\n[00:15] Amara: Low.\n[00:17] Jo: Hm.\n", "tHello.|pLow.", "00:12 00:15", 1),
    "counted.txt": ("1. Dr Lee: Write:\n1. Situation: exam\n2. Amara: Low.\n", "tWrite:\n1. Situation: exam|pLow.", "", 0),
}  # fmt: skip


def said(turns):
    return "|".join(turn.role[0] + turn.text for turn in turns)


@pytest.mark.fault("A4")
@pytest.mark.parametrize("name", EXPORTS)
def test_each_service_is_read_with_its_times(tmp_path, name):
    text, turns, times, ignored = EXPORTS[name]
    (tmp_path / name).write_text(text)
    (session,) = read(tmp_path / name, labels=speaker_labels(*TWO)).sessions()
    assert (said(session.turns), session.facts.get("times", ""), session.ignored) == (turns, times, ignored)


@pytest.mark.fault("A4")
@pytest.mark.parametrize("name", [name for name in EXPORTS if name != "counted.txt"])
def test_speakers_that_nobody_knows_are_counted_and_the_option_is_said(tmp_path, name):
    (tmp_path / name).write_text(EXPORTS[name][0])
    with pytest.raises(
        UserError, match=r"who speaks here: .*Dr Lee \(\d\).*--therapist-label .*cbtrain corpus guess"
    ) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert "amara (" in str(caught.value).lower()


@pytest.mark.fault("A4")
@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("a.srt", "1\n00:00:00,000 --> 00:00:05,100\nHello there.\n\n2\n00:00:05,100 --> 00:00:06,000\nHi: no.\n", "subtitles of 2 cues"),
        ("a.vtt", "WEBVTT\n\n00:00.000 --> 00:05.100\nHello.\n", "WebVTT of 1 cues"),
        ("a.txt", "WEBVTT\n\n00:00.000 --> 00:05.100\nHello.\n", "WebVTT of 1 cues"),
        ("a.json", json.dumps({"text": " Hello.", "segments": [{"id": 0, "start": 0.0, "end": 5.1, "text": " Hello."}], "language": "en"}),
            "1 segments, and none names its speaker: a JSON object with the keys text, segments, language"),
        ("a.json", json.dumps({"transcription": [{"timestamps": {"from": "0"}, "text": " Hello."}]}), "1 segments, and none names its speaker"),
        ("a.tsv", "start\tend\ttext\n0\t5100\tHello.\n", "segments without a column for the speaker: a table with the columns start, end, text"),
    ],
)  # fmt: skip
def test_what_names_no_speaker_is_refused_in_one_line(tmp_path, name, text, seen):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="WhisperX --diarize") as caught:
        read(tmp_path / name)
    assert seen in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.fault("A4")
def test_whisperx_speakers_are_never_guessed(tmp_path):
    said_by = [("SPEAKER_00", 0.5), ("SPEAKER_01", 5.25), ("SPEAKER_00", 7), (None, 8)]
    segments = [{"start": t, "end": t + 1, "text": f" {s}", "words": [], "speaker": s} for s, t in said_by if s]
    (tmp_path / "a.json").write_text(
        json.dumps({"segments": segments, "word_segments": [{"word": "x" * 80}] * 80, "language": "en"})
    )
    with pytest.raises(UserError, match=r"who speaks here: SPEAKER_00 \(2\), SPEAKER_01 \(1\).*--therapist-label"):
        read(tmp_path / "a.json")
    for options in (
        {"corpus_map": CorpusMap(therapist=["SPEAKER_00"], patient=["SPEAKER_01"])},
        {"labels": speaker_labels(["SPEAKER_00"], ["SPEAKER_01"])},
    ):
        corpus = read(tmp_path / "a.json", **options)
        (session,) = corpus.sessions()
        assert said(session.turns) == "tSPEAKER_00|pSPEAKER_01|tSPEAKER_00"
        assert session.facts == {"times": "0.5 5.25 7", "language": "en"}
        assert corpus.notes == (
            f"1 values of 'word_segments', too long to be kept as facts, the first: {tmp_path}/a.json",
        )
    (tmp_path / "a.json").write_text(json.dumps({"segments": [*segments, {"start": 8, "text": "Hm."}]}))
    with pytest.raises(UserError, match=r"message 4 has no speaker. .*ignore: \[''\]"):
        read(tmp_path / "a.json", **options)
    (session,) = read(tmp_path / "a.json", **options, corpus_map=CorpusMap(ignore=[""])).sessions()
    assert (len(session.turns), session.ignored) == (3, 1)


def word(path, build):
    docx = pytest.importorskip("docx")
    document = docx.Document()
    build(document)
    document.save(path)


def rewritten(path, change):
    """Rewrite the parts of a document: ``change`` gets each name and content."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, change(name, content))


def test_word_documents_of_paragraphs_and_tables(tmp_path):
    def paragraphs(document):
        document.add_heading("Session 1")
        words = document.add_paragraph()
        words.add_run("Thera").bold = True
        words.add_run("pist:")
        words.add_run(" Hello.").italic = True
        document.add_paragraph("Client: Low.").add_run().add_break()
        document.paragraphs[-1].add_run("And\ttired.")

    def table(document):
        rows = (
            ("Speaker", "Text", ""),
            ("0:05", "Therapist", "Hello."),
            ("", "Client:", "Low."),
            ("", "", "And tired."),
        )
        grid = document.add_table(rows=0, cols=3)
        for row in rows:
            for cell, text in zip(grid.add_row().cells, row if row[2] else ("", *row[:2]), strict=True):
                cell.text = text

    def time_between(document):
        grid = document.add_table(rows=0, cols=3)
        for row in (("Speaker", "Time", "Words"), ("Therapist", "0:05", "Hello."), ("Client", "[0:12]", "Low.")):
            for cell, text in zip(grid.add_row().cells, row, strict=True):
                cell.text = text

    def column_of_each(document):
        grid = document.add_table(rows=0, cols=2)
        for row in (("Client", "Therapist"), ("Low.", "Oh."), ("So.", "")):
            for cell, text in zip(grid.add_row().cells, row, strict=True):
                cell.text = text

    def teams(document):
        document.add_paragraph(
            "Talk-Meeting Transcript\nJanuary 3, 2024, 2:00PM\n30m 12s\nTherapist started transcription"
        )
        for head, words in (("Therapist   0:05", "Hello."), ("Client   0:12", "Low.")):
            document.add_paragraph(f"{head}\n{words}")

    def older_teams(document):
        for line in ("0:0:0.0 --> 0:0:5.120", "Therapist", "Hello.", "0:0:5.5 --> 0:0:7.1", "Client", "Low."):
            document.add_paragraph(line)

    expected = {
        paragraphs: ("tHello.|pLow.\nAnd\ttired.", ""),
        table: ("tHello.|pLow.\nAnd tired.", "0:05 -"),
        time_between: ("tHello.|pLow.", "0:05 0:12"),
        column_of_each: ("pLow.|tOh.|pSo.", ""),
        teams: ("tHello.|pLow.", "0:05 0:12"),
        older_teams: ("tHello.|pLow.", "0:0:0.0 0:0:5.5"),
    }
    for build, (turns, times) in expected.items():
        word(tmp_path / f"{build.__name__}-1.docx", build)
        (session,) = read(tmp_path / f"{build.__name__}-1.docx").sessions()
        assert (session.id, said(session.turns), session.facts.get("times", "")) == (
            f"{build.__name__}/1",
            turns,
            times,
        )
    (tmp_path / "~$teams-1.docx").write_bytes(b"lock")
    assert len(read(tmp_path).courses) == 6


def test_tracked_changes_are_accepted_and_no_entity_is_followed(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("SECRET")
    file = tmp_path / "a.docx"
    word(
        file, lambda document: [document.add_paragraph(line) for line in ("Therapist: NEW and OLD.", "Client: ENTITY.")]
    )

    def track(name, content):
        if name != "word/document.xml":
            return content
        text = content.decode()
        run = "<w:r><w:t>Therapist: NEW and OLD.</w:t></w:r>"
        assert run in text
        text = text.replace(
            run,
            '<w:r><w:t xml:space="preserve">Therapist: </w:t></w:r><w:ins w:id="1" w:author="x"><w:r><w:t>Hello.</w:t>'
            '</w:r></w:ins><w:del w:id="2" w:author="x"><w:r><w:delText>Go away.</w:delText></w:r></w:del>',
        )
        head, body = text.split("?>", 1)
        return f'{head}?><!DOCTYPE d [<!ENTITY e SYSTEM "file://{secret}">]>{body.replace("ENTITY", "Low. &e;")}'.encode()  # fmt: skip

    rewritten(file, track)
    (session,) = read(file).sessions()
    assert session.turns[0].text == "Hello."
    assert session.turns[1].text.startswith("Low.")
    assert "SECRET" not in str(session)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"PK\3\4 and no more", "not a readable Word document"),
        (lambda data: b"\xd0\xcf\x11\xe0 old", r"an old \.doc"),
        (lambda data: data[: len(data) // 2], "not a readable Word document"),
        ("[Content_Types].xml", "not a readable Word document"),
        ("word/document.xml", "not a readable Word document"),
        (documents.LONGEST_XML, "unpacks to more than a transcript has"),
    ],
)
def test_a_damaged_document_or_a_bomb_is_one_line(tmp_path, damage, message):
    file = tmp_path / "a.docx"
    word(file, lambda document: document.add_paragraph("Therapist: Hello."))
    if callable(damage):
        file.write_bytes(damage(file.read_bytes()))
    elif isinstance(damage, int):
        rewritten(file, lambda name, content: content + b" " * damage if name == "word/document.xml" else content)
        assert file.stat().st_size < 200_000
    else:
        rewritten(file, lambda name, content: b"<not xml" if name == damage else content)
    with pytest.raises(UserError, match=message) as caught:
        read(file)
    assert "\n" not in str(caught.value)


def test_without_python_docx_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "docx", None)
    (tmp_path / "a.docx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"need python-docx\. pip install 'cbtrain\[corpora\]'"):
        read(tmp_path)
