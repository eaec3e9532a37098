"""The task entity-matching by the command line and in process: train by any method, evaluate, continue."""

import json
import re

import pytest
from command import cbtrain
from random_model import random_model
from rich.console import Console

from cbtrain.cli.main import main
from cbtrain.model.adapters.methods import load_adapter
from cbtrain.study.entity_matching.evaluate import evaluate_matching
from cbtrain.study.entity_matching.settings import matching_config
from cbtrain.study.entity_matching.train import MatchingData, MatchingDocuments, train_matcher
from cbtrain.study.stages import StageSpec, StudyModel
from cbtrain.tasks.entity_matching.generate import generate_pairs
from cbtrain.tasks.entity_matching.prompts import DEFAULT, Prompt

TASK = ("task", "entity-matching")
STEPS = ("therapist.pack_tokens=1024", "therapist.token_budget=12000", "therapist.validation_tokens=3000")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("base") / "model", "llama")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / "pairs"
    assert main([*TASK, "generate", str(folder), "--pairs", "100", "--seed", "3"]) == 0
    return folder


def scores_of(folder):
    return json.loads((folder / "scores.json").read_text())["scores"][DEFAULT]


def test_trained_files_answer_as_the_decoder_that_was_trained(base, tmp_path):
    parts, prompt = generate_pairs(100, seed=3), Prompt.named(DEFAULT)
    for method in ("lora", "half"):
        overrides = [*STEPS, f"therapist.method={method}", "therapist.learning_rate=0.01"]
        config = matching_config(str(base), overrides=overrides)
        spec = StageSpec.of(config, "therapist", StudyModel.of(config, "real", Console(quiet=True)))
        documents = MatchingDocuments.of(MatchingData(parts["train"], parts["validation"], prompt), spec)
        decoder, summary = train_matcher(spec, documents, tmp_path / method, Console(quiet=True))
        scores = evaluate_matching(decoder, documents.renderer, parts["test"], prompt)
        assert scores.unparsed < len(parts["test"])  # random weights say neither Yes nor No
        assert summary["validation_best"] < summary["validation_before"]
        fresh = spec.base_decoder(Console(quiet=True))
        load_adapter(fresh, tmp_path / method / "adapter")
        assert evaluate_matching(fresh, documents.renderer, parts["test"], prompt) == scores


def test_an_evaluation_continues_and_knows_its_own(base, pairs, tmp_path, capsys):
    out = tmp_path / "scores"
    command = [*TASK, "evaluate", str(pairs), "--base", str(base), "--prompt", "all", "--out", str(out)]
    assert main(command) == 0
    whole, scores = (out / "answers.jsonl").read_text(), (out / "scores.json").read_text()
    assert "F1 over 4 prompts: mean" in capsys.readouterr().out
    assert whole.count('"kind": "answer"') == 4 * 20
    (out / "answers.jsonl").write_text("".join(whole.splitlines(keepends=True)[:31]) + '{"kind": "ans')
    (out / "scores.json").unlink()
    assert main(command) == 0
    assert (out / "scores.json").read_text() == scores
    assert (out / "answers.jsonl").read_text().count('"kind": "answer"') == 4 * 20
    assert main([*command[:-3], "domain-simple-free", "--out", str(out)]) == 2
    assert "an evaluation with other prompts is in this folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["train", "PAIRS", "--base", "BASE", "therapist.method=nothing"], "therapist.method"),
        (["train", "PAIRS/none", "--base", "BASE"], "no such file or folder"),
        (["evaluate", "PAIRS", "--base", "BASE", "--prompt", "simple"], "unknown prompt 'simple'"),
        (["evaluate", "PAIRS", "--base", "BASE", "--prompt", "file"], "the file has records and no prompts"),
        (["check", "PAIRS/../pairs.pkl"], "no file of pairs|no such file"),
        (["generate", "PAIRS"], "already exists"),
    ],
)
def test_bad_input_is_one_line(base, pairs, tmp_path, words, problem, capsys):
    words = [word.replace("PAIRS", str(pairs)).replace("BASE", str(base)) for word in words]
    out = ["--out", str(tmp_path / "out")] if words[0] in ("train", "evaluate") else []
    assert main([*TASK, *words, *out]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(problem, line), line


@pytest.mark.slow
def test_the_whole_way_by_the_command_line(tmp_path):
    """From nothing to scores; the small base has hardly begun to learn, so no score is asked for."""

    def run(*words):
        done = cbtrain(*TASK, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("generate", "pairs", "--pairs", "300")
    assert "60 rows, 15 positive, 45 negative" in run("check", "pairs")
    run("base", "--out", "small", "base.token_budget=20000", "base.validate_every=10000")
    command = ("train", "pairs", "--base", "small", "--out", "run", *STEPS, "therapist.lora.rank=4")
    run(*command)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["prompt"] == DEFAULT
    again = cbtrain(*TASK, *command, cwd=tmp_path)
    assert (again.returncode, "training is already finished here" in again.stderr) == (2, True)
    out = run("evaluate", "pairs", "--base", "small", "--adapter", "run/adapter", "--out", "run/test")
    assert DEFAULT in out
    assert scores_of(tmp_path / "run" / "test")["pairs"] == 60
