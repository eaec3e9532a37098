"""``cbtrain corpus …`` as people use it: real processes, their output, their exit status."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import cbtrain

from cbtrain.transcripts.reading import read

CBTRAIN = Path(sys.executable).with_name("cbtrain")
GOOD = [
    json.dumps(
        {
            "schema": "cbtrain.session/1",
            "course": course,
            "session": 1,
            "turns": [
                {"role": "patient", "text": f"I feel {course}."},
                {"role": "therapist", "text": f"Since when do you feel {course}?"},
            ],
        }
    )
    for course in ("amara", "ben", "cleo", "dora")
]


def corpus(*arguments, cwd, status=0):
    done = cbtrain("corpus", *arguments, cwd=cwd)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "sessions.jsonl").write_text("\n".join(GOOD))
    return tmp_path


def damage(folder):
    (folder / "c" / "sessions.jsonl").write_text("\n".join([GOOD[0], "{oops", *GOOD[1:], '{"schema": 7}']))


def test_stats(folder):
    counts = json.loads(corpus("stats", "c", "--json", cwd=folder).stdout)
    assert {key: counts[key] for key in counts if key != "distributions"} == {
        "patients": 4,
        "courses": 4,
        "sessions": 4,
        "turns": 8,
        "therapist_turns": 4,
        "patient_turns": 4,
        "ignored_turns": 0,
        "words": 36,
        "characters": 160,
        "sessions_with_repeated_speaker": 0,
        "sessions_without_turns": 0,
        "repeated_openings": 0,
    }
    assert counts["distributions"]["turns"]["assessment"]["median"] == 2
    shown = corpus("stats", "c", cwd=folder).stdout
    for word in ("therapist turns", "words a session", "median", "assessment"):
        assert word in shown


def test_stats_of_tokens(folder, tmp_path):
    from cbtrain.tokens.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["I feel low. Since when?"], 300, 64)
    tokenizer.save_pretrained(tmp_path / "model")
    counts = json.loads(corpus("stats", "c", "--json", "--tokenizer", "model", cwd=folder).stdout)
    expected = sum(
        len(tokenizer(turn.text, add_special_tokens=False)["input_ids"])
        for session in read(folder / "c").sessions()
        for turn in session.turns
    )
    assert counts["distributions"]["tokens"]["all"]["total"] == expected


def test_a_malformed_file_is_named_skipped_or_listed(folder):
    damage(folder)
    done = corpus("stats", "c", cwd=folder, status=2)
    assert done.stderr.startswith("cbtrain: c/sessions.jsonl:2: malformed JSON")
    assert done.stderr.count("\n") == 1
    assert "--skip-bad" in done.stderr
    done = corpus("stats", "c", "--skip-bad", "--json", cwd=folder)
    assert json.loads(done.stdout)["sessions"] == 4
    assert "left out: c/sessions.jsonl:2: " in done.stderr
    assert "2 faults: the sessions or files named were left out" in done.stderr
    found = json.loads(corpus("check", "c", "--json", cwd=folder, status=1).stdout)
    assert [(f["kind"], f["where"]) for f in found["findings"]] == [
        ("unreadable", "c/sessions.jsonl:2"),
        ("unreadable", "c/sessions.jsonl:6"),
    ]
    assert (found["sessions"], found["unreadable"]) == (4, 2)


def test_check(folder):
    done = corpus("check", "c", cwd=folder)
    assert "4 sessions checked" in done.stdout
    assert "Not found: no_turns" in done.stdout
    (folder / "a.txt").write_text("Therapist: Hello.\nTherapist: Still me.\nClient: Hi. Therapist: Yes?")
    done = corpus("check", "a.txt", cwd=folder, status=1)
    assert "warning repeated_speaker: 1 finding in 1 session\n" in done.stdout
    assert "  a.txt, turn 3  Therapist: in a patient's turn" in done.stdout
    done = corpus("check", "a.txt", "--all", cwd=folder, status=1)
    assert "warning repeated_speaker  a.txt, turn 2  therapist" in done.stdout
    assert "error inner_label  a.txt, turn 3  Therapist: in a patient's turn" in done.stdout
    found = json.loads(corpus("check", "a.txt", "--json", "--kind", "inner_label", cwd=folder, status=1).stdout)
    assert [finding["kind"] for finding in found["findings"]] == ["inner_label"]
    assert found["kinds"]["repeated_speaker"] == {"severity": "warning", "findings": 1, "sessions": 1}
    assert "Did you mean 'inner_label'" in corpus("check", "--kind", "inner_lable", cwd=folder, status=2).stderr


@pytest.mark.fault("A10")
def test_findings_are_grouped_with_a_few_examples_in_80_columns(folder):
    turns = "\n".join(f"Client: Yes (laughs) {n}.\nTherapist: <p>{'word ' * 30}</p>" for n in range(500))
    (folder / "a.txt").write_text(turns)
    lines = corpus("check", "a.txt", "--examples", "2", cwd=folder).stdout.splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 80
    place = lines.index("warning markup: 500 findings in 1 session")
    assert lines[place + 2] == "  a.txt, turn 2  <p>, </p>"
    assert lines[place + 4] == "  … 498 more"
    assert "note transcriber_note: 500 findings in 1 session" in lines
    every = corpus("check", "a.txt", "--all", "--kind", "markup", cwd=folder).stdout
    assert every.count("warning markup  a.txt, turn ") == 500


def test_explain(folder):
    (folder / "a.txt").write_text("Client: Hi.\nTherapist: Yes?\nClient: Bye.\nSession Summary:\n- sleep")
    shown = corpus("check", "a.txt", "--explain", "a/1", cwd=folder).stdout
    assert "turn 3: closing summaries moved from the patient's label to the therapist" in shown
    assert "- 3. patient: Bye.\nSession Summary:" in shown
    assert "+ 4. therapist: Session Summary:" in shown
    assert "2 unchanged turns" in shown
    kept = corpus("check", "a.txt", "--explain", "a/1", "--set", "corpus.cleaning.split_summaries=false", cwd=folder)
    assert "Nothing to clean" in kept.stdout
    found = json.loads(corpus("check", "a.txt", "--explain", "a/1", "--json", cwd=folder).stdout)
    assert [line["side"] for line in found["lines"]] == ["same", "same", "before", "after", "after"]
    assert "no session 'a/7'" in corpus("check", "a.txt", "--explain", "a/7", cwd=folder, status=2).stderr


def test_split(folder):
    shown = corpus("split", "c", "--out", "parts", "--seed", "3", cwd=folder).stdout
    manifest = json.loads((folder / "parts" / "split.json").read_text())
    ids = [course for side in ("train", "validation", "test") for course in manifest[side]]
    assert sorted(ids) == ["amara", "ben", "cleo", "dora"]
    for side in ("train", "validation", "test"):
        assert [course.id for course in read(folder / "parts" / side).courses] == manifest[side]
        assert f"{side}: {', '.join(manifest[side])}" in shown
    again = json.loads(corpus("split", "c", "--json", "--keep", "parts/split.json", "--seed", "9", cwd=folder).stdout)
    assert {**again, "seed": 3} == manifest
    done = corpus("split", "c", "--out", "parts", cwd=folder, status=2)
    assert "parts: already exists" in done.stderr


def test_output_stays_whole(folder):
    (folder / "bad.jsonl").write_text('{"messages": 1}\n{"messages": 2}')
    done = corpus("check", "bad.jsonl", "--json", "--format", "messages", cwd=folder, status=2)
    assert len(json.loads(done.stdout)["findings"]) == 2
    head = f"{CBTRAIN} corpus check c --json | head -c 20; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", head], cwd=folder, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_markup_in_names_is_text(folder):
    (folder / "[red]").mkdir()
    facts = {"characteristics": {"mood": "[/bold]"}, "name": "x", "brief": "y"}
    profiles = [
        json.dumps({"schema": "cbtrain.profile/1", "course": c, **facts}) for c in ("amara", "ben", "cleo", "dora")
    ]
    (folder / "[red]" / "profiles.jsonl").write_text("\n".join(profiles))
    (folder / "[red]" / "sessions.jsonl").write_text("\n".join(GOOD))
    assert "[red]" in corpus("check", "[red]", cwd=folder).stdout
    assert "[/bold]" in corpus("split", "[red]", "--stratify", "mood", cwd=folder).stdout


def test_a_card_refuses_what_other_commands_refuse(folder):
    damage(folder)
    assert "c/sessions.jsonl:2" in corpus("card", "c", "--out", "card", cwd=folder, status=2).stderr
    assert not (folder / "card").exists()


def test_split_by_strata(tmp_path):
    shown = corpus("split", "sample", "--stratify", "severity,engagement", cwd=tmp_path).stdout
    assert "severity" in shown
    assert "engagement" in shown
    assert "stratify" in corpus("split", "sample", "--stratify", "mood", cwd=tmp_path, status=2).stderr


def test_convert_there_and_back(tmp_path):
    for layout, out in (("messages", "m.jsonl.gz"), ("sharegpt", "s"), ("cbtrain", "c")):
        corpus("convert", "sample", "--to", layout, "--out", out, cwd=tmp_path)
        assert list(read(tmp_path / out).sessions()) == list(read("sample").sessions())
    line = json.loads(gzip.decompress((tmp_path / "m.jsonl.gz").read_bytes()).splitlines()[0])
    assert [message["role"] for message in line["messages"][:2]] == ["user", "assistant"]
    profiles = [course.profile for course in read("sample").courses]
    assert [course.profile for course in read(tmp_path / "s").courses] == profiles
    done = corpus("convert", "sample", "--to", "messages", "--out", "m2.jsonl", cwd=tmp_path)
    assert "6 profiles were not written" in done.stdout
    assert "already exists" in corpus("convert", "--to", "cbtrain", "--out", "c", cwd=tmp_path, status=2).stderr
    assert "neither a .jsonl" in corpus("convert", "--to", "cbtrain", "--out", "c.csv", cwd=tmp_path, status=2).stderr


def test_convert_cleaned(folder):
    (folder / "a.txt").write_text("Client: Hi.\nTherapist: Yes?\nTherapist: Well?")
    done = corpus("convert", "a.txt", "--to", "cbtrain", "--out", "out.jsonl", "--clean", cwd=folder)
    assert "turns merged with the same speaker's turn before: 1" in done.stdout
    (session,) = read(folder / "out.jsonl").sessions()
    assert [turn.text for turn in session.turns] == ["Hi.", "Yes?\n\nWell?"]


def test_nothing_half_written(folder):
    damage(folder)
    corpus("convert", "c", "--to", "messages", "--out", "out", cwd=folder, status=2)
    corpus("split", "c", "--out", "out", cwd=folder, status=2)
    assert [path.name for path in folder.iterdir()] == ["c"]


@pytest.mark.fault("F11")
def test_card(folder):
    (folder / "c" / "LICENSE").write_text("MIT License\n\nPermission is hereby granted, free of charge, to any person")
    damage(folder)
    corpus("card", "c", "--out", "card", "--skip-bad", cwd=folder)
    card = (folder / "card" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    for line in ("| sessions | 4 |", "| `unreadable` | error | malformed, left out | 2 | 2 |", "No medical device"):
        assert line in card
    for plot in ("phases.svg", "irregularities.svg"):
        assert f"({plot})" in card
        assert "<svg" in (folder / "card" / plot).read_text()
    shutil.rmtree(folder / "card")
    (folder / "c").rename(folder / "<img src=x onerror=alert(1)>")
    corpus("card", "<img src=x onerror=alert(1)>", "--out", "card", "--license", "cc-by-4.0", "--skip-bad", cwd=folder)
    assert "# &lt;img src=x onerror=alert(1)&gt;\n" in (folder / "card" / "README.md").read_text()
    assert "license: cc-by-4.0" in (folder / "card" / "README.md").read_text()


def test_schema(tmp_path):
    schemas = json.loads(corpus("schema", cwd=tmp_path).stdout)
    assert schemas["cbtrain.session/1"]["required"] == ["schema", "course", "session", "turns"]
    assert "cbtrain.profile/1" in schemas


@pytest.mark.parametrize("command", ["stats", "check", "split"])
def test_paths_that_are_no_corpus(tmp_path, command):
    assert "gone: no such file or folder" in corpus(command, "gone", cwd=tmp_path, status=2).stderr
    (tmp_path / "empty.jsonl").write_text("")
    assert "empty.jsonl: no sessions in it" in corpus(command, "empty.jsonl", cwd=tmp_path, status=2).stderr
    (tmp_path / "link").symlink_to("gone")
    assert "a broken link" in corpus(command, "link", cwd=tmp_path, status=2).stderr
    assert "Did you mean 'messages'" in corpus(command, "--format", "message", cwd=tmp_path, status=2).stderr
