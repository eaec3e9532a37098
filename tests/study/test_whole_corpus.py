"""A model of one's own sees its whole corpus: once, unless settings say otherwise, and what is left out is said."""

import json
import random

import pytest
from command import cbtrain
from random_model import random_model
from rich.console import Console

from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.study.anchored import anchored
from cbtrain.study.corpus import load_corpus
from cbtrain.study.datasets import held_out_datasets
from cbtrain.study.stages import StageSpec, StudyModel

WORDS = [a + b for a in ("ba", "do", "fe", "gi", "ku", "lo") for b in ("ma", "ne", "pi", "ro", "su", "ta")]
SETTINGS = ["training.speakers=therapist", "therapist.pack_tokens=512", "tokens.cache=none", "threads=1"]


def write_corpus(file, ids, changed=None):
    """Write a session for each number in ``ids`` as OpenAI messages, no two of them alike."""
    with file.open("w") as lines:
        for number in ids:
            draw = random.Random(number)
            said = [" ".join(draw.choices(WORDS, k=12)) for _ in range(6)]
            said[1] = (changed or {}).get(number, said[1])
            messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
            lines.write(json.dumps({"id": number, "messages": messages}) + "\n")
    return file


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("model"), "llama", positions=4096)


@pytest.mark.fault("H1")
@pytest.mark.fault("H4")
@pytest.mark.fault("A14")
def test_one_epoch_of_every_session_with_parts_in_files_of_their_own(model, tmp_path):
    write_corpus(tmp_path / "train.jsonl", range(12), changed={7: "You <|end|> now?"})
    write_corpus(tmp_path / "valid.jsonl", [20, 21, 5])  # ids begin anew; one session is also in train.jsonl
    given = [f"model.path={model}", "corpus.path=train.jsonl", "corpus.validation=valid.jsonl", "split.test=0"]

    refused = cbtrain("train", "--out", "run", *given, *SETTINGS, cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "special token '<|end|>'" in refused.stderr
    assert "corpus.skip_bad=true" in refused.stderr
    assert not (tmp_path / "run").exists()

    done = cbtrain("train", "--out", "run", *given, "corpus.skip_bad=true", *SETTINGS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        "validation: 3 courses of valid.jsonl; split.validation is not used. Course ids that another file has too: 1,"
        in done.stdout
    )
    assert "Warning: 1 patients or near-duplicate sessions stand on two sides" in done.stdout
    assert "opens like" not in done.stdout  # the pair is named once
    assert "12 train, 3 validation, 0 test" in done.stdout
    assert "1 training session left out that cannot be used, the first: train.jsonl" in done.stdout
    assert "therapist: 11 of 12 sessions, " in done.stdout
    assert "token_budget" not in done.stdout
    assert "1 epoch, " in done.stdout
    assert "validation on 3 of 3 sessions, " in done.stdout
    summary = json.loads((tmp_path / "run" / "training" / "therapist" / "summary.json").read_text())
    data = summary["data"]
    assert (data["units"], data["units_offered"], data["units_skipped"]) == (11, 12, 1)
    assert (summary["epochs"], summary["stopped"], summary["token_budget"]) == (1.0, "epochs", None)
    assert summary["tokens"] == data["tokens_per_epoch"] < data["tokens_offered"]
    assert 5 < len(summary["curve"]) <= 12  # a tenth of an epoch is less than a step here
    corpus = json.loads((tmp_path / "run" / "study.json").read_text())["corpus"]
    assert corpus["leaks"] == ["validation/5/1 is much like 5/1"]
    assert (corpus["split"]["validation"], corpus["split"]["test"]) == (["20", "21", "validation/5"], [])

    nobody = cbtrain("evaluate", "--run", "run", cwd=tmp_path)
    assert (nobody.returncode, nobody.stderr.count("\n")) == (2, 1)
    nobody = cbtrain("run", "--out", "second", *given, cwd=tmp_path)
    assert "split.test: nobody is held out, so there is nobody to treat" in nobody.stderr
    assert not (tmp_path / "second").exists()


@pytest.mark.fault("H1")
@pytest.mark.fault("H4")
def test_a_budget_says_what_it_leaves_out_and_training_needs_no_validation(model, tmp_path):
    write_corpus(tmp_path / "train.jsonl", range(12))
    parts = ["corpus.path=train.jsonl", "split.test=0", "split.validation=0", "therapist.token_budget=900"]
    done = cbtrain("train", "--out", "run", f"model.path={model}", *parts, *SETTINGS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "training" / "therapist" / "summary.json").read_text())
    data = summary["data"]
    used = data["units"]
    assert 1 < used < 12
    assert f"therapist: {used} of 12 sessions, {data['tokens_per_epoch']:,} of about " in done.stdout
    assert f"{12 - used} sessions, " in done.stdout
    assert "are not used: therapist.token_budget is 900; null takes them all" in done.stdout
    assert "no validation" in done.stdout
    assert summary["validation_before"] is None
    assert summary["curve"] == []
    assert summary["stopped"] == "budget"
    assert summary["share_of_corpus"] == pytest.approx(summary["tokens"] / data["tokens_offered"], rel=0.01)
    assert (tmp_path / "run" / "therapist" / "adapter_model.safetensors").exists()
    assert done.stdout.endswith(f"next: cbtrain serve --model {model} --adapter run/therapist\n")  # not to evaluate


@pytest.mark.fault("H1")
def test_only_the_tiny_model_has_a_budget():
    own, tiny = load_config(None, ["model.path=anywhere"]), load_config(None)
    for speaker in ("therapist", "patient"):
        stage = getattr(own, speaker)
        assert (stage.token_budget, stage.max_epochs, stage.validate_every) == (None, 1, None)
        assert stage.tokens_between_validations(1000) == 100
        assert getattr(tiny, speaker).token_budget <= 120_000


@pytest.mark.fault("H4")
@pytest.mark.parametrize("part", ["validation", "test"])
def test_an_empty_name_of_a_part_is_not_the_folder_here(part):
    with pytest.raises(UserError, match=f"corpus.{part}: must have a length of at least 1"):
        load_config(None, [f"corpus.{part}="])


@pytest.mark.fault("A14")
@pytest.mark.fault("H4")
def test_skipping_what_cannot_be_used_leaves_out_held_out_patients_too(model, tmp_path, capsys):
    """By default each session is a patient of its own: its only session must not end the run."""
    write_corpus(tmp_path / "train.jsonl", range(4))
    write_corpus(tmp_path / "some.jsonl", [20, 21, 22], changed={20: "You <|end|> now?", 22: "You <|end|> now?"})
    write_corpus(tmp_path / "none.jsonl", [20], changed={20: "You <|end|> now?"})

    def datasets(validation, test):
        parts = [f"corpus.{part}={tmp_path / file}" for part, file in (("validation", validation), ("test", test))]
        path = f"corpus.path={tmp_path / 'train.jsonl'}"
        config = load_config(None, [f"model.path={model}", path, "corpus.skip_bad=true", *parts, *SETTINGS])
        console = Console(width=1000)
        corpus = load_corpus(config, console)
        spec = StageSpec.of(config, "therapist", StudyModel.of(config, "none", console, corpus.split), "cpu")
        dataset = spec.dataset(corpus, console)
        return dataset, held_out_datasets(corpus, dataset.renderer, config, 4096, console)

    dataset, held_out = datasets("some.jsonl", "some.jsonl")
    assert len(dataset.validation.units) == 1
    assert list(held_out) == ["test/21"]
    said = capsys.readouterr().out
    assert "no perplexity of 2 held-out patients without a session to use, the first: " in said
    assert "some.jsonl:1 (test/20/1): turn 2 of test/20/1 contains the special token '<|end|>'" in said
    for parts, name in ((("none.jsonl", "some.jsonl"), "validation"), (("some.jsonl", "none.jsonl"), "test")):
        with pytest.raises(UserError, match=f"no session of the {name} part can be used.*split.{name}=0"):
            datasets(*parts)


def test_a_run_finds_the_files_of_its_corpus_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("path", "metadata", "validation", "test")
    for name in names:
        (tmp_path / name).touch()
    corpus = anchored(load_config(None, [f"corpus.{name}={name}" for name in names])).corpus
    assert [getattr(corpus, name) for name in names] == [str(tmp_path / name) for name in names]
