"""Corpora of other people's layouts, each small with its right counts: as they lie, with labels, or with a map."""

import contextlib
import io
import json
import math
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.cli.main import main
from cbtrain.errors import UserError
from cbtrain.transcripts.labelled_text import parse_text
from cbtrain.transcripts.labels import TEXT_LABELS
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.reading import locate, read, speaker_labels
from cbtrain.transcripts.source import validate
from cbtrain.transcripts.types import Turn

SHAPES = Path(__file__).with_name("shapes")
EXPECTED = json.loads((SHAPES / "expected.json").read_text())
MAPS = {
    "s1_turn_rows.csv": """
each: turn
session: transcript_id
order: utterance_id
speaker: interlocutor
text: utterance_text
unique: [transcript_id, utterance_id]
""",
    "s7_alternating.jsonl": "{each: session, turns: dialogue, alternate: patient}",
    "s8_string.jsonl": "{each: text, text: dialogue}",
    "s9_counselchat.csv": "{each: pair, patient: questionText, therapist: answerText, patient_id: questionID, markup: strip}",
    "s10_wide.csv": "{each: session, turns: [patient_round1, doctor_round1, patient_round2, doctor_round2], alternate: patient}",
    "s11_vera": r"{each: text, patient_id: '_(?P<patient_id>[A-Z][a-z]+)_', drop: 'CONVERSATION ENDED'}",
    "s14_ids": "map: {patient_id: member_profile}",
}
LABELS = {
    "s11_fullwidth": ("心理咨询师", "来访者"),
    "s11_vera": ("agent", "user"),
    "s12_zoom.vtt": ("Dr Lee", "Amara"),
    "s13_aside.txt": ("T", "C"),
}
NAMES = {"therapist": "therapist_turns", "patient": "patient_turns", "ignored": "ignored_turns"}


def cbtrain(*arguments):
    """Status, output and errors of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status or 0, out.getvalue(), err.getvalue()


@pytest.mark.fault("A3")
@pytest.mark.fault("A9")
@pytest.mark.parametrize("name", EXPECTED)
def test_every_shape_has_its_right_counts(tmp_path, name):
    options = []
    if name in MAPS:
        (tmp_path / "map.yaml").write_text(MAPS[name])
        options += ["--map", tmp_path / "map.yaml"]
    for role, label in zip(("therapist", "patient"), LABELS.get(name, ()), strict=False):
        options += [f"--{role}-label", label]
    status, out, err = cbtrain("corpus", "stats", SHAPES / name, *options, "--json")
    if EXPECTED[name].get("refused"):
        assert (status, err.count("\n")) == (2, 1), err
        assert "columns id, a, b: which of them is the speaker" in err
        assert "cbtrain corpus guess" in err
        return
    assert status == 0, err
    counts = json.loads(out)
    expected = {NAMES.get(key, key): value for key, value in EXPECTED[name].items() if isinstance(value, int)}
    assert {key: counts[key] for key in expected} == expected


@pytest.mark.fault("A9")
@pytest.mark.parametrize("name", [name for name in EXPECTED if not EXPECTED[name].get("refused")])
def test_a_map_with_every_key_written_reads_the_same(name):
    """So a run writes it into its config.yaml, from which an evaluation reads the corpus."""
    keys = yaml.safe_load(MAPS.get(name, "{}"))
    given = CorpusMap.model_validate(keys.get("map", keys))
    written = CorpusMap.model_validate(given.model_dump(mode="json"))
    labels = speaker_labels(*([[label] for label in LABELS.get(name, ())] or ([], [])))
    corpora = [read(SHAPES / name, labels=labels, corpus_map=one) for one in (given, written)]
    assert corpora[0] == corpora[1]


@pytest.mark.parametrize(
    "name", [name for name in EXPECTED if name not in ("s11_vera", "s12_zoom.vtt", "s13_aside.txt")]
)
def test_a_guess_is_a_map_that_reads_the_corpus(tmp_path, name):
    status, out, err = cbtrain("corpus", "guess", SHAPES / name)
    assert status == 0, err
    (tmp_path / "map.yaml").write_text(out)
    status, out, err = cbtrain("corpus", "stats", SHAPES / name, "--map", tmp_path / "map.yaml", "--json")
    assert status == 0, err
    counts = json.loads(out)
    if not EXPECTED[name].get("refused"):
        assert counts["sessions"] == EXPECTED[name]["sessions"]
        assert counts["therapist_turns"] == EXPECTED[name]["therapist"]
        assert counts["patient_turns"] == EXPECTED[name]["patient"]


def test_a_guess_says_who_has_to_be_decided():
    _, out, _ = cbtrain("corpus", "guess", SHAPES / "s12_zoom.vtt")
    assert "patient: []\ntherapist: []\n" in out
    assert "#   Dr Lee: 2 turns (not known: decide)" in out
    assert "# not sure: who is Dr Lee (2), Amara (1)?" in out
    _, out, _ = cbtrain("corpus", "guess", SHAPES / "s7_alternating.jsonl")
    assert "# not sure: alternate: no speaker is named; is the first turn the patient's?" in out


@pytest.mark.fault("A1")
@pytest.mark.fault("A2")
@pytest.mark.fault("A4")
@pytest.mark.parametrize(
    ("text", "turns", "ignored"),
    [
        ("Therapist: Hi.\nClient (crying): Low.\nTherapist （softly）： Since when?", "tHi.|pLow.|tSince when?", {}),
        ("[THERAPIST]: Hi.\n[CLIENT] Low.", "tHi.|pLow.", {}),
        ("Therapist: Hi.\nClient [crying]: Low.\n[Client: cries]\nClient's wife: He is.", "tHi.|pLow.\n[Client: cries]", {"Client's wife": 1}),
        ("Therapist 1: Hi.\nUser 1: Low.\nTherapist 2: Since when?\nUser 2: May.", "tHi.|pLow.|tSince when?|pMay.", {}),
        ("Therapist: A bond between a\nclient: and me.\nClient A: Low.\nClient B: Me too.", "tA bond between a\nclient: and me.|pLow.", {"Client B": 1}),
        (" " * 60 + "***Therapist***        : Hi.\n[00:12]       Client: Low.", "tHi.|pLow.", {}),
        ("THERAPIST: Write:\nSITUATION: exam\nCLIENT: Low.", "tWrite:\nSITUATION: exam|pLow.", {}),
        ("Therapist  0:05\nHi.\nAnn Roe  0:07\nHm.\nClient  0:12\nLow.", "tHi.|pLow.", {"Ann Roe": 1}),
        ("T1: no label\nTherapist 1: Hi.\nClient 1: Low.", "tHi.|pLow.", {}),
        ("Therapist: Hi.\nClient: Low.\nCLIENT 2: Me too.\nMother: So he says.", "tHi.|pLow.", {"CLIENT 2": 1, "Mother": 1}),
        ("THERAPIST: Hi.\nCLIENT: Low.\nMR. LEE: Hm.", "tHi.|pLow.", {"LEE": 1}),
        ("Therapist: Hi.\nSituation: exam\nTHOUGHT: no\nClient: Low.", "tHi.\nSituation: exam\nTHOUGHT: no|pLow.", {}),
        ("Therapist  0:05\nHi.\n\nClient  0:12\nLow.", "tHi.|pLow.", {}),
        ("00:00:13 Therapist: Hi.\n[16.9s - 27.4s] CLIENT:\nLow.\n[00:01.000 --> 00:02.000] Therapist: Oh.", "tHi.|pLow.|tOh.", {}),
        ("Therapist\tHi.\nClient\tLow.", "tHi.|pLow.", {}),
        ("Therapist – Hi.\nClient - Low.", "tHi.|pLow.", {}),
        ("Therapist: Hi.\nClient - my own word - is low.\nClient: Low.", "tHi.\nClient - my own word - is low.|pLow.", {}),
        ("**Therapist:** Hi.\n__Client__: Low.\n\u00a0Therapist\u00a0:\u00a0Oh.", "tHi.|pLow.|tOh.", {}),
        ("来访者：低落。\n妈妈：他总这样。\n咨询师：多久了？", "p低落。|t多久了？", {"妈妈": 1}),
    ],
)  # fmt: skip
def test_one_grammar_of_labels(text, turns, ignored):
    parsed = parse_text(text, TEXT_LABELS)
    roles = {"t": "therapist", "p": "patient"}
    assert parsed.turns == [Turn(roles[turn[0]], turn[1:]) for turn in turns.split("|")]
    assert parsed.ignored == ignored


@pytest.mark.fault("A5")
def test_a_corpus_without_a_turn_is_an_error_everywhere(tmp_path):
    (tmp_path / "a.txt").write_text("Alpha: Hello.\nBeta: Hi.\nAlpha: So.\n")
    (tmp_path / "requirements.txt").write_text("torch: 2\n")
    for command in ("stats", "check", "split", "card", "convert"):
        options = {"card": ["--out", tmp_path / "card"], "convert": ["--to", "cbtrain", "--out", tmp_path / "x.jsonl"]}
        status, _, err = cbtrain("corpus", command, tmp_path, *options.get(command, []))
        assert status == 2, command
        assert "no turn in any session" in err
        assert "labels in the text that were not read: Alpha (2), Beta (1)" in err


@pytest.mark.fault("A3")
def test_sessions_numbered_anew_for_each_patient_are_not_one(tmp_path):
    rows = ["ann,1,client,Hi.", "ann,1,therapist,Oh.", "ben,1,client,Low.", "ben,1,therapist,Hm.", "ben,2,client,Hey."]
    (tmp_path / "a.csv").write_text("\n".join(["patient_id,session,speaker,text", *rows, "ben,2,therapist,Yes."]))
    sessions = list(read(tmp_path / "a.csv").sessions())
    assert [(s.course, s.number, s.patient, len(s.turns)) for s in sessions] == [
        ("ann", 1, "ann", 2),
        ("ben", 1, "ben", 2),
        ("ben", 2, "ben", 2),
    ]
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Oh."}]
    (tmp_path / "b.jsonl").write_text(json.dumps({"patient_id": 7, "messages": turns}) + "\n")
    (session,) = read(tmp_path / "b.jsonl").sessions()
    assert (session.patient, session.facts) == ("7", {})


def test_a_label_with_an_aside_is_guessed_and_named(tmp_path):
    (tmp_path / "a.txt").write_text("T: Hello.\nC (crying): Hi.\nMom: Stop.\n")
    _, out, _ = cbtrain("corpus", "guess", tmp_path)
    assert ("patient: [C]" in out, "therapist: [T]" in out, "Mom: 1 turns (not known: decide)" in out) == (True,) * 3
    status, _, err = cbtrain("corpus", "stats", tmp_path)
    assert (status, "who speaks here: Mom (1), T (1), C (1)" in err) == (2, True)


def test_texts_are_read_by_the_map_of_the_documentation(tmp_path):
    (tmp_path / "a_Lena_run1.txt").write_text("agent: Hi.\nuser: Low.\nCONVERSATION ENDED\n")
    keys = {"patient_id": r"_(?P<patient_id>[A-Z][a-z]+)_run", "drop": "CONVERSATION ENDED"}
    corpus_map = CorpusMap(each="text", text="dialogue", therapist=["agent"], patient=["user"], **keys)
    (session,) = read(tmp_path, corpus_map=corpus_map).sessions()
    assert (session.patient, [turn.text for turn in session.turns]) == ("Lena", ["Hi.", "Low."])


def test_pairs_that_name_their_session_are_one_dialogue(tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text(
        "chat,who,asked,answered\n1,ann,Hi.,Hello.\n1,ann,I am low.,Since when?\n1,ann,,Still there?\n2,ben,Yes,No\n"
    )
    keys = "{each: pair, patient: asked, therapist: answered, session: chat, patient_id: who}"
    (tmp_path / "map.yaml").write_text(keys)
    status, out, err = cbtrain("corpus", "stats", file, "--map", tmp_path / "map.yaml", "--json")
    counts = json.loads(out)
    assert (status, counts["sessions"], counts["therapist_turns"], counts["patients"]) == (0, 2, 3, 2)
    assert "left out: 1 pairs without the words of both speakers" in err
    file.write_text(file.read_text() + "1,ann,More,Oh\n")
    status, _, err = cbtrain("corpus", "stats", file, "--map", tmp_path / "map.yaml")
    assert (status, "rows of session '1' do not stand together" in err) == (2, True)


@pytest.mark.fault("A11")
@pytest.mark.fault("A12")
def test_weights_system_prompts_and_other_values_are_kept(tmp_path):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hm.", "weight": 0},
        {"role": "Human", "content": "So."},
        {"role": "assistant", "content": None, "train": False},
        {"role": "client", "content": "Well."},
        {"role": "Counselor", "content": "Yes.", "masked": False},
    ]
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"messages": messages, "topic": "work", "session": "2", "n": {"a": 1}})
    )
    (session,) = read(tmp_path / "a.jsonl").sessions()
    assert [turn.weight for turn in session.turns] == [1, 0, 1, 0, 1, 1]
    assert session.number == 2
    assert session.facts == {"system": "Be kind.", "topic": "work", "n": '{"a": 1}'}


def test_llama_factorys_descriptions_are_maps(tmp_path):
    info = {
        "asked": {"file_name": "qa.json", "columns": {"prompt": "q", "query": "more", "response": "a", "history": "h"}},
        "talks": {
            "file_name": "talks.json",
            "formatting": "sharegpt",
            "columns": {"messages": "talk", "system": "sys"},
            "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "U", "assistant_tag": "A"},
        },
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    asked = [{"q": "I am low.", "more": "Since May.", "a": "What happened?", "h": [["Hi.", "Hello."]]}]
    (tmp_path / "qa.json").write_text(json.dumps(asked))
    talk = [{"who": "U", "says": "Hi."}, {"who": "A", "says": "Hello."}]
    (tmp_path / "talks.json").write_text(json.dumps([{"talk": talk, "sys": "Be kind."}]))
    counts = {}
    for name in ("qa.json", "talks.json"):
        status, out, err = cbtrain(
            "corpus", "stats", tmp_path / name, "--map", tmp_path / "dataset_info.json", "--json"
        )
        assert status == 0, err
        counts[name] = json.loads(out)
    assert (counts["qa.json"]["turns"], counts["qa.json"]["words"]) == (4, 9)
    assert (counts["talks.json"]["therapist_turns"], counts["talks.json"]["words"]) == (1, 2)


def test_arrow_tables_are_read_like_csv(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.feather
    import pyarrow.parquet

    rows = {
        "dialogue_id": [1, 1, 2, 2],
        "speaker": ["seeker", "supporter"] * 2,
        "text": ["Hi.", "Hello.", "Low.", "Oh."],
    }
    pyarrow.parquet.write_table(arrow.table(rows), tmp_path / "a.parquet")
    pyarrow.feather.write_feather(arrow.table(rows), tmp_path / "a.feather", compression="uncompressed")
    talks = [[{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}]]
    pyarrow.parquet.write_table(arrow.table({"conversations": talks}), tmp_path / "b.parquet")
    for name in ("a.parquet", "a.feather"):
        assert [[turn.text for turn in s.turns] for s in read(tmp_path / name).sessions()] == [
            ["Hi.", "Hello."],
            ["Low.", "Oh."],
        ]
    assert [len(s.turns) for s in read(tmp_path / "b.parquet").sessions()] == [2]
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"c\.parquet: not a readable table"):
        read(tmp_path / "c.parquet")


@pytest.mark.parametrize(
    ("text", "encoding", "options"),
    [
        ("speaker;text\nclient;Déjà vu; said\n", "utf-8", None),
        ("sep=;\nspeaker;text\nclient;Hi.\ntherapist;Hello.\n", "utf-8-sig", {}),
        ("speaker,text\nclient,Déjà vu.\ntherapist,Hello.\n", "cp1252", {"encoding": "cp1252"}),
        ("speaker\ttext\nclient\tHi.\ntherapist\tHello.\n", "utf-8", {}),
    ],
)
def test_tables_of_any_spreadsheet(tmp_path, text, encoding, options):
    (tmp_path / "a.csv").write_text(text, encoding=encoding)
    if options is None:
        with pytest.raises(UserError, match=r"a\.csv:2: 3 cells, and the header has 2"):
            read(tmp_path / "a.csv")
        return
    (session,) = read(tmp_path / "a.csv", corpus_map=CorpusMap.model_validate(options)).sessions()
    assert [turn.role for turn in session.turns] == ["patient", "therapist"]
    if options:
        with pytest.raises(UserError, match=r"not utf-8 text .* \(encoding: cp1252\)"):
            read(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "text", "options", "turns"),
    [
        ("a.csv", "p1,t1,p2,t2\nLow.,,Still low.,Oh.\n", {"each": "session", "turns": ["p1", "t1", "p2", "t2"],
         "alternate": "patient"}, "pLow.|pStill low.|tOh."),
        ("a.json", '[{"session_id": 1, "speaker": "client", "text": "Hi.", "value": 3}, {"session_id": 2, "speaker": '
         '"therapist", "text": "Oh.", "value": 4}]', {}, "pHi.|tOh."),
        ("a.csv", "speaker,text,value,weight\nclient,Hi.,3,72\ntherapist,Oh.,4,\n", {}, "pHi.|tOh."),
        ("a.csv", "who, says\n Bob ,Hi.\nAnn:,Oh.\n", {"each": "turn", "speaker": "who", "text": "says",
         "patient": "Bob", "therapist": "Ann:"}, "pHi.|tOh."),
        ("a.jsonl", '{"spk": [0, 1, 0], "t": ["Hi.", "Oh.", null], "patient": 12}', {"each": "session", "turns": "t",
         "speaker": "spk", "patient": [0], "therapist": [1]}, "pHi.|tOh.|p"),
        ("a.jsonl", '{"dialogue": "Client: Hi.\\rTherapist: Oh.\\n(End of session)"}', {"each": "text",
         "text": "dialogue", "drop": "(?i)end OF session"}, "pHi.|tOh."),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "Hi.", "masked": 1}, {"role": "assistant", "tool_calls": '
         '[]}, {"role": "assistant", "content": "Oh."}], "system": "Be kind."}', {}, "pHi.|t|tOh."),
        ("a.txt", "Therapist: Hi.\nHelper: Oh.\nClient: Low.", {"therapist": ["Helper"]}, "tHi.|tOh.|pLow."),
        ("a.vtt", "WEBVTT\n\n1\n00:01.000 --> 00:02.0\n<v Client>Hi &amp;</v> <v Therapist>Oh</v>\n\nNOTE x\n\n2\n"
         "00:03.000 --> 00:04.0\nClient: So\n\nmore\n", {}, "pHi &|tOh|pSo\nmore"),
        ("a.tsv", "speaker\ttext\nclient\t\"I cannot\ntherapist\tOh.\n", {}, "! malformed table"),
        ("a.csv", "s,n,speaker,text\n1,0,client,Hi.\n1,0,therapist,Oh.\n", {"each": "turn", "speaker": "speaker",
         "text": "text", "session": "s", "order": "n"}, "! n 0 comes twice in one session"),
        ("a.csv", "s,patient_id,speaker,text\n1,a,client,Hi.\n1,b,client,Oh.\n", {"each": "turn", "speaker": "speaker",
         "text": "text", "session": "s", "patient_id": "patient_id"}, "! session '1' is of the patients a and b"),
        ("a.csv", "s,n,speaker,text\n1,1,client,Hi.\n", {"each": "turn", "speaker": "speaker", "text": "text",
         "unique": ["m"]}, "! unique: no column 'm' among s, n, speaker, text"),
        ("a.jsonl", '{"turns": [{"speaker": "USER", "text": "Hi."}, {"speaker": "SYSTEM", "text": "Oh."}]}', {},
         "! speaker 'SYSTEM' is neither patient nor therapist"),
    ],
)  # fmt: skip
def test_words_are_whose_they_are(tmp_path, name, text, options, turns):
    (tmp_path / name).write_text(text)
    corpus_map = CorpusMap.model_validate(options)
    if turns.startswith("! "):
        with pytest.raises(UserError, match=turns[2:]):
            read(tmp_path / name, corpus_map=corpus_map)
        return
    sessions = list(read(tmp_path / name, corpus_map=corpus_map).sessions())
    assert "|".join(turn.role[0] + turn.text for session in sessions for turn in session.turns) == turns
    assert {turn.weight for session in sessions for turn in session.turns} <= {0.0, 1.0}


def test_files_of_another_kind_in_a_folder_are_named(tmp_path):
    (tmp_path / "a.txt").write_text("Therapist: Hi.\nClient: Low.")
    (tmp_path / "b.jsonl").write_text('{"messages": [{"role": "user", "content": "Hi."}]}')
    (tmp_path / "c.docx").write_bytes(b"PK")
    (tmp_path / "requirements.txt").write_text("torch")
    notes = read(tmp_path).notes
    assert [note.split(",")[0] for note in notes] == ["1 .txt files", "1 .docx files"]
    assert notes[0].endswith("the first: a.txt")


def test_unknown_speakers_are_counted_by_name(tmp_path):
    rows = ["speaker,text", *["client,Hi."] * 3, *["therapist,Hello."] * 2, "Ann,Hm."]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    expected = r"a\.csv:7: speaker 'Ann' is neither patient nor therapist; who speaks here: client \(3\), therapist \(2\), Ann \(1\)"
    with pytest.raises(UserError, match=expected):
        read(tmp_path / "a.csv")
    corpus = read(tmp_path / "a.csv", corpus_map=CorpusMap(ignore=["Ann"]))
    assert corpus.notes == ("1 turns of 'Ann', who is ignored",)


names = st.sampled_from(
    ["messages", "dialogue", "turns", "role", "from", "content", "text", "speaker", "a.b", "a[0]", "[*]", "id", "x", ""]
)
keys = names | st.text(max_size=6) | st.just("(?P<x>.)")
maps = st.dictionaries(
    st.sampled_from([*CorpusMap.model_fields, "other"]),
    keys | st.lists(keys, max_size=3) | st.sampled_from(["turn", "pair", "session", "text", "patient", "strip"]),
    max_size=7,
)
cell = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(math.inf)
    | st.text(max_size=8)
    | st.sampled_from(["client", "T"])
)
content = st.recursive(
    cell, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)


lines = st.lists(
    st.sampled_from(
        ["WEBVTT", "", "1", "00:00:01.000 --> 00:00:02.000", "<v Dr Lee>Hi.</v>", "Dr Lee: Hi.", "client: low", "[Ann] 10:15:03", "Ann  0:05",
         "10:15:03 From Ann to Everyone:", "0:0:1.0 --> 0:0:2.1", "10:15 AM Ann: x", "1. Therapist: Hi.", "Attendees", "Ann, client", "\x1e0:05",
         "Transcribed by https://otter.ai", "file,patient,session", "start\tend\ttext", "0\t5\tHi."]
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    max_size=8,
)  # fmt: skip


@given(maps, lines, st.sampled_from(["a.txt", "a.vtt", "a.srt", "a.tsv"]), st.sampled_from([[], ["Ann"], ["Dr Lee"]]))
def test_no_export_and_no_metadata_make_a_traceback(tmp_path_factory, given_map, lines, name, labels):
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        for file, content in ((name, lines), ("meta.csv", ["file,patient,arm", *lines])):
            (folder / file).write_text("\n".join(content))
        for metadata in (None, folder / "meta.csv"):
            for chosen in (given_map, {}):
                try:
                    corpus_map = validate(CorpusMap, chosen, "map", "Correct it.")
                    known = speaker_labels(labels, [])
                    for session in read(folder, labels=known, corpus_map=corpus_map, metadata=metadata).sessions():
                        assert session.id
                except UserError as error:
                    assert "\n" not in str(error)  # noqa: PT017
        cbtrain("corpus", "guess", folder)
    finally:
        shutil.rmtree(folder)


@given(maps, st.lists(content, min_size=1, max_size=4), st.sampled_from(["a.json", "a.jsonl", "a.csv"]))
def test_no_map_and_no_table_make_a_traceback(tmp_path_factory, given_map, records, name):
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        if name == "a.csv":
            lines = [",".join(str(value) for value in (r if isinstance(r, list) else [r])) for r in records]
            (folder / name).write_text("\n".join(lines), encoding="utf-8", errors="replace")
        else:
            texts = [json.dumps(record) for record in records]
            (folder / name).write_text(f"[{','.join(texts)}]" if name == "a.json" else "\n".join(texts))
        for skip in (False, True):
            try:
                corpus_map = validate(CorpusMap, given_map, "map", "Correct it.")
                for session in read(folder / name, corpus_map=corpus_map, skip_bad=skip).sessions():
                    assert session.id
            except UserError as error:
                assert "\n" not in str(error)  # noqa: PT017
        cbtrain("corpus", "guess", folder / name)
    finally:
        shutil.rmtree(folder)


def test_a_path_says_who_is_treated(tmp_path):
    for name in ("p1/first.txt", "p1/second.txt", "p2/first.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("Therapist: Hello.\nClient: Hi.\n")
    source = locate(tmp_path, corpus_map=CorpusMap(course="(?P<course>p[0-9])/", session=None))
    assert [session.id for session in source.sessions()] == ["p1/1", "p1/2", "p2/1"]
    with pytest.raises(UserError, match="the pattern matches nothing in 'p1/first.txt'"):
        list(locate(tmp_path, corpus_map=CorpusMap(course="(?P<course>q)")).sessions())
