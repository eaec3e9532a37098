"""``cbtrain config explain``, and the JSON schema for editors."""

import json
from functools import cache

import pytest
import yaml
from places import ROOT

from cbtrain.cli.main import main
from cbtrain.config.editor_schema import editor_schema
from cbtrain.config.explain import explain
from cbtrain.config.loading import KINDS, load_config
from cbtrain.config.problems import all_keys
from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError


@pytest.mark.parametrize(
    ("key", "lines"),
    [
        (
            "therapist.warmup",
            [
                "therapist.warmup: number, at least 0, below 1",
                "default: 0.05",
                "share of the run (to max_epochs or token_budget) in which the learning rate rises",
            ],
        ),
        (
            "therapist.learning_rate",
            ["therapist.learning_rate: number, above 0", "default: 0.0002 (0.005 where model.path is null)"],
        ),
        ("evaluation.therapist.max_tokens", ["whole number, at least 1", "default: 120"]),
        ("evaluation.judging.rater", ["auto, cue or llm", "default: auto"]),
        ("training.zero_stage", ["0, 1, 2 or 3", "default: 1", "shard optimizer states (1)"]),
        ("training.speakers", ["list ([a, b] or a,b) of patient or therapist", "default: [therapist, patient]"]),
        ("split.test", ["number or list ([a, b] or a,b) of text"]),
        ("model.path", ["text or null", "default: null", "null makes a tiny model from the corpus"]),
        ("tokens.weights.0.role", ["patient, therapist or null", "turns of this speaker only"]),
        ("evaluation.patient_provider.base_url", ["text", "no default"]),
    ],
)
def test_a_setting_is_explained(key, lines):
    text = " ".join(explain(key, StudyConfig).split())
    for line in lines:
        assert line in text


def test_a_section_is_explained_with_all_that_is_in_it(capsys):
    assert main(["config", "explain", "training"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("training: How training runs on this machine")
    for key in KINDS["study"].model_fields["training"].annotation.model_fields:
        assert f"\ntraining.{key}: " in out
    assert "a section, see `cbtrain config explain training.checkpoints`" in out
    assert main(["config", "explain"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{key}: " in out for key in (*StudyConfig.model_fields, "extends"))
    assert main(["config", "explain", "extends"]) == 0
    assert "relative to this one" in capsys.readouterr().out
    assert main(["config", "explain", "courses_in_flight"]) == 0  # of `cbtrain synthesize`
    assert "default: 8" in capsys.readouterr().out


def test_everything_is_explained():
    for key in all_keys(StudyConfig):
        text = explain(key, StudyConfig)
        assert text.startswith(f"{key}: ")
        assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("therapist.lerning_rate", "unknown key 'therapist.lerning_rate'. Did you mean 'therapist.learning_rate'?"),
        ("learning_rate", "unknown key 'learning_rate'. Did you mean 'therapist.learning_rate'?"),
        ("modle", "unknown key 'modle'. Did you mean 'model'?"),
        ("seed.x", "unknown key 'seed.x'. 'seed' is not a section."),
    ],
)
def test_a_mistyped_key_is_one_line_with_the_nearest(key, hint, capsys):
    assert main(["config", "explain", key]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"cbtrain: command line: {hint}\n")


@cache
def validator(kind="study"):
    jsonschema = pytest.importorskip("jsonschema")
    schema = editor_schema(KINDS[kind], kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def shipped(folder):
    return [yaml.safe_load(file.read_text("utf-8")) for file in sorted((ROOT / "configs" / folder).glob("*.yaml"))]


@pytest.mark.parametrize(
    ("kind", "folder"),
    [
        ("study", "."),
        ("study", "recipes"),
        ("study", "families"),
        ("synthesis", "synthesis"),
        ("provider", "providers"),
    ],
)
def test_the_schema_takes_every_shipped_file(kind, folder):
    takes, files = validator(kind), shipped(folder)
    if folder == "families":  # what a family says about a recipe is a part of a study too
        files += [part for file in files for part in file.pop("recipes").values()]
    assert files
    for file in files:
        assert list(takes.iter_errors(file)) == []


GOOD = [
    "extends: llama3.1-8b-qlora\ntherapist: {lora: {rank: 8}}",
    "extends: ../mine.yaml",
    "training: {speakers: 'therapist,patient'}",
    "therapist: {lora: {targets: all-linear}, token_budget: '50_000_000'}",  # as YAML 1.2 reads 50_000_000
    "evaluation: {patient_provider: deepseek}",
    "evaluation: {patient_provider: {preset: deepseek, max_retries: 3}}",
    "evaluation: {patient_provider: null}",
    "tokens: {weights: [{match: ai_limits, weight: 0}]}",
    "therapist: {recompute: full}",  # an older name
]
BAD = [
    "extends: 3",
    "therapist: {lerning_rate: 1}",
    "therapist: {learning_rate: 0}",
    "therapist: {learning_rate: fast}",
    "training: {zero_stage: 4}",
    "training: {speakers: [nurse]}",
    "evaluation: {patient_provider: deepsek}",
    "tokens: {weights: [{match: ai_limits}]}",
    "therapist: {extends: quick}",
    "seed: [1]",
    "- 1",
]


@pytest.mark.parametrize("text", [*GOOD, *BAD])
def test_the_schema_takes_and_refuses_what_loading_does(text, tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 1")
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "c.yaml"
    file.write_text(text)
    assert validator().is_valid(yaml.safe_load(text)) == (text in GOOD)
    if text in GOOD:
        load_config(str(file))
    else:
        with pytest.raises(UserError):
            load_config(str(file))


def test_the_schema_is_printed(capsys):
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "quick" in schema["properties"]["extends"]["anyOf"][0]["enum"]
    rate = schema["$defs"]["StageConfig"]["properties"]["warmup"]
    assert rate["description"].startswith("share of the run")
    assert main(["config", "schema", "synthesis"]) == 0
    assert "courses_in_flight" in json.loads(capsys.readouterr().out)["properties"]
