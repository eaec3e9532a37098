"""Which texts are measured, what cannot be is said, and a text that cannot be read ends a run before it begins."""

import pytest
from rich.console import Console

from cbtrain.cli.main import main
from cbtrain.config.loading import load_config
from cbtrain.study.corpus import load_corpus
from cbtrain.study.datasets import untrained_part
from cbtrain.study.stages import StageSpec, StudyModel

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def texts():
    """What is measured of a speaker with given settings."""
    first = load_config("quick", [])
    model = StudyModel.of(first, "none", QUIET, load_corpus(first, QUIET).split)

    def of(speaker, *settings):
        config = load_config("quick", settings)
        renderer = StageSpec.of(config, speaker, model).renderer()
        return untrained_part(speaker, load_corpus(config, QUIET), renderer, model.positions, config), renderer

    return of


def counted(text):
    return sum(int(document.supervised[1:].sum()) for document in text.documents)


def test_the_other_speakers_turns_are_measured_whatever_the_recipe_of_training(texts):
    (general, turns), renderer = texts("therapist", "training.forgetting.tokens=500")
    assert (counted(general), counted(turns)) == (500, 500)
    (record, *_), first = turns.documents, "training.forgetting.tokens=500"
    said = renderer.decode(record.ids[record.supervised].tolist())
    config = load_config("quick", [])
    sessions = [session for course in load_corpus(config, QUIET).split.validation for session in course.sessions]
    spoken = {turn.role: turn.text for session in sessions if session.id == record.name for turn in session.turns[:2]}
    assert spoken["patient"][:40] in said
    assert spoken["therapist"][:40] not in said
    # Neither records of single turns, nor another seed or another size of packs of the stage choose other tokens.
    for setting in ("tokens.recipe=paper", "therapist.seed=7", "therapist.pack_tokens=2048"):
        (_, again), _ = texts("therapist", first, setting)
        assert [document.ids.tolist() for document in again.documents] == [d.ids.tolist() for d in turns.documents]
    (_, therapists), _ = texts("patient", first)
    assert therapists.name == "therapists' turns"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["therapist.supervise=both"], "therapist.supervise is both, so the loss counts the turns of both"),
        (["split.validation=0"], "there is no validation part"),
        (["tokens.format=alpaca", "tokens.recipe=paper"], "format 'alpaca' holds one answer a record"),
    ],
)
def test_why_turns_are_not_measured_is_said(texts, settings, why):
    (general, turns), _ = texts("therapist", *settings)
    assert general.documents
    assert (turns.documents, turns.why_not) == ([], why)


def test_it_can_be_switched_off(texts):
    assert texts("therapist", "training.forgetting.enabled=false")[0] == ()


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "no such file"), (b"\n", "it holds no text"), (b"\xff\xfe\x00", "UTF-8")]
)
def test_a_text_that_cannot_be_read_ends_the_run_before_it_begins(content, problem, tmp_path, capsys):
    if content is not None:
        (tmp_path / "mine.txt").write_bytes(content)
    setting, out = f"training.forgetting.text={tmp_path}/mine.txt", tmp_path / "out"
    assert main(["train", "--config", "quick", "--out", str(out), setting]) == 2
    told = capsys.readouterr()
    assert problem in told.err
    assert "training.forgetting.text" in told.err
    assert told.err.count("\n") == 1
    assert "Read the corpus" not in told.out
    assert not out.exists()
