"""A table beside a folder of texts: whose session each file is, its arm, and other facts; nothing is dropped unsaid."""

import csv
import string

import pytest

from cbtrain.cli.main import main
from cbtrain.errors import UserError
from cbtrain.transcripts.config import SplitConfig
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.split import split


def folder(root, *files):
    """Write a dialogue in words of its own into each file."""
    for letter, name in zip(string.ascii_lowercase, files, strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        words = (f"work{letter} sleep{letter} home{letter} food{letter} friends{letter} rest{letter}").split()
        turns = (" ".join(words[turn:] + words[:turn]) for turn in range(4))
        lines = (f"{('Therapist', 'Client')[turn % 2]}: {text}." for turn, text in enumerate(turns))
        (root / name).write_text("\n".join(lines))
    return root


def table(root, text, name="table.csv"):
    (root / name).write_text(text)
    return root / name


def test_a_table_says_whose_sessions_they_are(tmp_path):
    corpus_folder = folder(tmp_path / "in", "s1.txt", "s2.txt", "b/s1.txt", "b/s2.vtt.txt", "c.txt")
    metadata = table(
        corpus_folder,
        "File;Patient_ID;course;session;ARM;severity;note\ns1;ann;;3;A;mild;\n./s2.txt;ann;;4;A;mild;x y\n"
        "b\\s1.txt;ben;ben-a;;B;severe;\nb/s2.vtt;ben;ben-a;;B;severe;\nb/s2.vtt;ben;ben-a;;B;severe;\ngone.txt;x;;;;;\n;y;;;;;\n",
    )
    corpus = read(corpus_folder, metadata=metadata)
    assert [(s.id, s.patient, s.facts) for s in corpus.sessions()] == [
        ("ben-a/1", "ben", {"arm": "B", "severity": "severe"}),
        ("ben-a/2", "ben", {"arm": "B", "severity": "severe"}),
        ("c/1", "", {}),
        ("A/ann/3", "ann", {"arm": "A", "severity": "mild"}),
        ("A/ann/4", "ann", {"arm": "A", "severity": "mild", "note": "x y"}),
    ]
    assert sorted(corpus.notes) == [
        "1 metadata of files that table.csv does not name, the first: c.txt",
        "1 rows of table.csv that are there twice, the first: b/s2.vtt",
        "1 rows of table.csv whose files are not there, the first: gone.txt",
        f"1 rows of table.csv without a file, the first: {metadata}:8",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,arm\ns1.txt,A\n", r"a table with columns path, arm: which one is the file\?"),
        ("file,arm\ns1.txt,A\ns1.txt,B\n", r"table\.csv:3: a second row of 's1\.txt', which says something else than .*table\.csv:2"),
        ("file,arm\ns1,A\ns1.txt,B\n", "'s1.txt' and 's1' are rows of one file, and differ"),
        ("file,arm\ns2,A\n", r"'s2' may be s2\.srt or s2\.txt"),
        ("file,session\ns1,one\n", "session 'one' is not a number"),
        ("file,patient,patient_id\ns1,a,b\n", "the columns patient, patient_id say one thing"),
        ("file,arm\nx/s1.txt,A\n", r"it names no file of the corpus: it has x/s1\.txt, the corpus s1\.txt, s2\.txt"),
        ("file,course,session\ns1,a,1\ns2.txt,a,1\ns2.srt,b,1\n", "session 1 of course 'a' is already at"),
        ("file,arm\n", "a table without rows"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_an_error(tmp_path, text, message):
    corpus = folder(tmp_path / "in", "s1.txt", "s2.txt")
    if "s2" in text:
        (corpus / "s2.srt").write_text(
            "1\n00:00:01,000 --> 00:00:02,000\nTherapist: Hi.\n\n2\n00:00:03,000 --> 00:00:04,000\nClient: Low.\n"
        )
    with pytest.raises(UserError, match=message) as caught:
        read(corpus, metadata=table(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_records_take_metadata_by_their_file_too(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    (tmp_path / "a.json").write_text('[{"speaker": "client", "text": "Hi."}, {"speaker": "therapist", "text": "Oh."}]')
    rows = arrow.table({"file": ["a"], "patient": [7.0], "age": [None]})
    pyarrow.parquet.write_table(rows, tmp_path / "who.parquet")
    corpus = read(tmp_path, metadata=tmp_path / "who.parquet")
    assert [(session.patient, session.facts) for session in corpus.sessions()] == [("7", {})]
    assert corpus.notes == ()


def test_patients_of_a_table_stay_together_and_its_facts_stratify(tmp_path):
    names = [f"f{number}.txt" for number in range(12)]
    rows = [f"{name},p{number // 2},{('mild', 'severe')[number // 2 % 2]}" for number, name in enumerate(names)]
    metadata = table(tmp_path, "\n".join(["file,patient,severity", *rows]))
    corpus = read(folder(tmp_path / "in", *names), metadata=metadata)
    parts = split(corpus, SplitConfig(validation=0.34, test=0.34, stratify=["severity"]))
    sides = [{course.patient for course in side} for side in (parts.train, parts.validation, parts.test)]
    assert [len(side) for side in sides] == [2, 2, 2]
    assert len(set.union(*sides)) == 6
    for side in (parts.train, parts.validation, parts.test):
        assert [len(course.sessions) for course in side] == [2, 2]
        assert {course.sessions[0].facts["severity"] for course in side} == {"mild", "severe"}
    with pytest.raises(UserError, match=r"no characteristic 'arm'.*It has severity"):
        split(corpus, SplitConfig(stratify=["arm"]))


@pytest.mark.fault("G10")
def test_arms_of_a_table_reach_the_scores_and_the_analysis(tmp_path, capsys):
    names = [f"{patient}/{arm}.txt" for patient in ("ann", "ben", "cem") for arm in "AB"]
    rows = [f"{name},{name[:3]},{name[4]},{1 + 'AB'.index(name[4])}" for name in names]
    metadata = table(tmp_path, "\n".join(["file,patient_id,arm,session", *rows]))
    corpus = folder(tmp_path / "in", *names)
    settings = [f"corpus.path={corpus}", f"corpus.metadata={metadata}", "evaluation.judging.rater=cue"]
    assert not main(["rate", *settings, "--out", str(tmp_path / "out")])
    with (tmp_path / "out" / "scores.csv").open() as file:
        scores = list(csv.DictReader(file))
    assert [(row["patient"], row["arm"], row["status"]) for row in scores] == [(n[:3], n[4], "ok") for n in names]
    command = capsys.readouterr().out.rpartition("next: cbtrain ")[2].split()
    assert command[-4:] == ["--transcripts", str(corpus), "--metadata", str(metadata)]
    assert not main([*command, "--json"])
    assert '"A"' in capsys.readouterr().out


def test_too_many_third_speakers_are_refused(tmp_path):
    group = [f"Client {name}: I am here." for name in "12345"]
    (tmp_path / "a.txt").write_text("\n".join(["Therapist: Hello.", *group]))
    message = r"4 turns of third speakers would be left out and 2 kept: Client 2 \(1\).*under ignore of the map"
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.txt")
    corpus = read(tmp_path / "a.txt", corpus_map=CorpusMap(ignore=[f"Client {name}" for name in "2345"]))
    assert [(len(session.turns), session.ignored) for session in corpus.sessions()] == [(2, 4)]
    (tmp_path / "a.txt").write_text("Therapist: Hello.\nMother: He is low.\nTherapist: Since when?\nMother: May.\n")
    with pytest.raises(UserError, match=r"2 turns of third speakers .* and 2 kept: Mother \(2\)"):
        read(tmp_path / "a.txt")
