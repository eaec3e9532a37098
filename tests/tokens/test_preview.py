"""``cbtrain corpus preview`` shows exactly what training is given."""

import json

import pytest
from command import cbtrain
from lessons import documents_for
from random_model import random_model
from transformers import AutoTokenizer

from cbtrain.tokens.config import THERAPIST_SYSTEM
from cbtrain.transcripts.reading import read


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("preview") / "model", "llama", positions=8192)


def preview(*arguments, cwd, status=0):
    done = cbtrain("corpus", "preview", *arguments, cwd=cwd)
    assert done.returncode == status, done.stderr
    return done


@pytest.mark.parametrize("speaker", ["therapist", "patient"])
def test_tokens_are_those_of_training_and_say_what_is_learnt(model, tmp_path, speaker):
    options = ("--model", model, "--session", "sam/9", "--speaker", speaker, "--json")
    tokens = json.loads(preview("--corpus", "sample", *options, cwd=tmp_path).stdout)
    (course,) = [course for course in read("sample").courses if course.id == "sam"]
    turns = course.sessions[1].turns
    system = THERAPIST_SYSTEM if speaker == "therapist" else course.profile.brief
    (expected,) = documents_for(AutoTokenizer.from_pretrained(model), turns, speaker=speaker, system=system)
    assert [token["id"] for token in tokens] == expected.ids.tolist()
    assert [token["supervised"] for token in tokens] == expected.supervised.tolist()
    assert all(token["weight"] == float(token["supervised"]) for token in tokens)
    learnt = AutoTokenizer.from_pretrained(model).decode([t["id"] for t in tokens if t["supervised"]])
    said = [turn.text for turn in turns if turn.role == speaker]
    assert [part.strip() for part in learnt.split("<|end|>") if part.strip()] == [text.strip() for text in said]


def test_cleaning_comes_first_and_the_first_session_is_shown(model, tmp_path):
    (tmp_path / "a.txt").write_text(
        "Client: Hi.\nTherapist: Yes?\nPatient: Low.\nClient: Very.\nTherapist: Since when?"
    )
    shown = preview("a.txt", "--model", model, cwd=tmp_path).stdout
    assert "a/1: " in shown
    assert "Low.\n\nVery." in shown
    assert "Since when?<|end|>" in shown


def test_the_picture(model, tmp_path):
    preview("sample", "--model", model, "--lines", "5", "--svg", "p.svg", cwd=tmp_path)
    picture = (tmp_path / "p.svg").read_text()
    assert picture.startswith("<svg")
    assert "context" in picture


def test_bad_input(model, tmp_path):
    assert "no session 'x/1'" in preview("sample", "--model", model, "--session", "x/1", cwd=tmp_path, status=2).stderr
    assert "no such model folder" in preview("sample", "--model", "./no", cwd=tmp_path, status=2).stderr


def test_weights_supervision_pieces_and_formats_are_shown(model, tmp_path):
    rule = "tokens.weights=[{match: ai_limits, weight: 0.1}]"
    options = ("sample", "--model", model, "--session", "amara/1", "--set", rule)
    tokens = json.loads(preview(*options, "--json", cwd=tmp_path).stdout)
    assert {token["weight"] for token in tokens} == {0.0, 0.1, 1.0}
    assert all(token["supervised"] == (token["weight"] > 0) for token in tokens)
    text = preview(*options, cwd=tmp_path).stdout
    assert "learnt, weight 0.1  learnt  context only" in text
    both = json.loads(preview(*options, "--supervise", "both", "--json", cwd=tmp_path).stdout)
    assert sum(t["supervised"] for t in both) > sum(t["supervised"] for t in tokens)
    pieces = preview(*options, "--set", "tokens.document_tokens=1500", cwd=tmp_path).stdout
    assert "4 documents" in pieces.splitlines()[0]
    assert "amara/1#4: " in pieces
    assert "[Earlier turns are left out.]" in pieces
    records = preview(*options, "--set", "tokens.recipe=paper", "--set", "tokens.format=alpaca", cwd=tmp_path).stdout
    assert "chat format: alpaca (named in the settings)" in records
    assert records.count("### Response:") > 5
    course = json.loads(preview(*options, "--set", "tokens.document=course", "--json", cwd=tmp_path).stdout)
    assert len(course) > len(tokens)


def test_a_model_folder_may_hold_a_tokenizer_alone(model, tmp_path):
    (tmp_path / "m").mkdir()
    for file in model.iterdir():
        if "token" in file.name or file.suffix == ".jinja":
            (tmp_path / "m" / file.name).write_bytes(file.read_bytes())
    assert "supervised" in preview("sample", "--model", "m", cwd=tmp_path).stdout


def test_bad_options_are_one_line(model, tmp_path):
    for arguments, said in (
        (("--lines", "0"), "--lines: 0 is too small"),
        (("--corpus", "other"), "two corpora are named, a and other"),
        (("--set", "tokens.format=lama"), "unknown format 'lama'"),
        (("--set", "tokens.document_tokens=20"), "needs"),
    ):
        path = "a" if "--corpus" in arguments else "sample"
        error = preview(path, "--model", model, *arguments, cwd=tmp_path, status=2).stderr
        assert said in error
        assert error.count("\n") == 1


def test_tokens_of_an_epoch(model, tmp_path):
    command = ["corpus", "tokens", "--model", model]
    options = ["--set", "therapist.pack_tokens=4000", "--ranks", "2", "--json"]
    facts = json.loads(cbtrain(*command, *options, cwd=tmp_path).stdout)
    assert facts["units"] == 18
    assert facts["units_cut"] > 0
    assert facts["documents"] > 18
    assert facts["context_left_out_tokens"] == 0
    assert facts["longest_document"] <= 4000
    assert facts["paper_recipe_tokens_per_epoch"] > 5 * facts["whole_recipe_tokens_per_epoch"]
    assert facts["steps"] == -(-facts["packs"] // 2)
    step = json.loads(cbtrain(*command, "--set", "therapist.tokens_per_step=24000", *options, cwd=tmp_path).stdout)
    # As training plans it: as many packs as hold so many tokens, and packs are not quite full.
    assert step["steps"] == -(-step["packs"] // round(24_000 * step["packs"] / step["tokens_per_epoch"]))
    assert step["packs"] / step["steps"] > 6
    shown = cbtrain(*command, cwd=tmp_path).stdout
    assert "tokens an epoch, the 2024 study's recipe" in shown
    refused = cbtrain(*command, "--ranks", "0", cwd=tmp_path)
    assert (refused.returncode, refused.stderr) == (2, "cbtrain: --ranks: 0 is too small. At least 1.\n")
