"""``cbtrain corpus preview`` shows exactly what training is given."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from random_model import random_model
from transformers import AutoTokenizer

from cbtrain.tokens.chat import ChatRenderer, dialogue
from cbtrain.tokens.config import THERAPIST_SYSTEM
from cbtrain.transcripts.reading import read

CBTRAIN = Path(sys.executable).with_name("cbtrain")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("preview") / "model", "llama")


def preview(*arguments, cwd, status=0):
    command = [CBTRAIN, "corpus", "preview", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)
    assert done.returncode == status, done.stderr
    return done


@pytest.mark.parametrize("speaker", ["therapist", "patient"])
def test_tokens_are_those_of_training_and_say_what_is_learnt(model, tmp_path, speaker):
    options = ("--model", model, "--session", "sam/9", "--speaker", speaker, "--json")
    tokens = json.loads(preview("--corpus", "sample", *options, cwd=tmp_path).stdout)
    (course,) = [course for course in read("sample").courses if course.id == "sam"]
    turns = course.sessions[1].turns
    system = THERAPIST_SYSTEM if speaker == "therapist" else course.profile.brief
    expected = ChatRenderer(AutoTokenizer.from_pretrained(model)).document("s", dialogue(turns, speaker, system))
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
