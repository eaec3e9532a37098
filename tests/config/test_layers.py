"""``extends``, and whose fault it is where settings of several places do not fit."""

import pytest

from cbtrain.config.loading import dump_config, load_config, load_provider_config, load_synthesis_config
from cbtrain.errors import UserError


def test_a_file_that_extends_a_shipped_config_changes_what_it_says(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: llama3.1-8b-qlora\ntherapist: {lora: {rank: 64}}\nmodel: {path: mine}")
    config = load_config(str(file), ["seed=3"])
    expected = load_config("llama3.1-8b-qlora", ["therapist.lora.rank=64", "model.path=mine", "seed=3"])
    assert config == expected
    assert "extends" not in dump_config(config)


def test_a_file_extends_another_one_by_its_path_from_there(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "common.yaml").write_text("seed: 1\nthreads: 2\nevaluation: {seeds: 5}")
    (tmp_path / "mine.yaml").write_text("extends: base/common.yaml\nseed: 4")
    monkeypatch.chdir(tmp_path / "base")
    config = load_config("../mine.yaml")
    assert (config.seed, config.threads, config.evaluation.seeds) == (4, 2, 5)


def test_an_api_that_is_extended_keeps_its_preset_or_makes_room(tmp_path):
    (tmp_path / "below.yaml").write_text("evaluation: {patient_provider: deepseek}")
    file = tmp_path / "mine.yaml"
    for own, expected in (("{model: m}", {"preset": "deepseek", "model": "m"}), ("openai", "openai")):
        file.write_text(f"extends: below.yaml\nevaluation: {{patient_provider: {own}}}")
        (tmp_path / "whole.yaml").write_text(f"evaluation: {{patient_provider: {expected}}}")
        assert load_config(str(file)) == load_config(str(tmp_path / "whole.yaml"))


def test_how_transcripts_are_written_extends_its_own_kind(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: hermes\nsessions: 2")
    assert load_synthesis_config(str(file)) == load_synthesis_config("hermes", ["sessions=2"])
    with pytest.raises(
        UserError, match=r"mine.yaml: extends 'hermes': there is no such shipped config, and no such file"
    ):
        load_config(str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "extends: quik",
            "mine.yaml: extends 'quik': there is no such shipped config, and no such file. Did you mean 'quick'?",
        ),
        ("extends: qlora", "Add a family: llama3.1-8b-qlora, mistral-7b-v0.3-qlora, qwen2.5-7b-qlora."),
        ("extends: [quick, paper]", "mine.yaml: extends: ['quick', 'paper'] is not a name. Name one"),
        ("extends: ''", "mine.yaml: extends: '' is not a name"),
        (
            "extends: other.yaml",
            "mine.yaml: extends 'other.yaml', which itself extends 'quick'. Only one level is allowed: extend 'quick' here",
        ),
        ("extends: mine.yaml", "mine.yaml: extends 'mine.yaml', which itself extends 'mine.yaml'"),
        ("extends: bad.yaml", "bad.yaml: unknown key 'sed'. Did you mean 'seed'?"),
        ("therapist: {extends: quick}", "mine.yaml: unknown key 'therapist.extends'"),
        ("extends: broken.yaml", "broken.yaml:1: malformed YAML"),
    ],
)
def test_what_cannot_be_extended_is_one_clear_line(tmp_path, text, message):
    (tmp_path / "other.yaml").write_text("extends: quick")
    (tmp_path / "bad.yaml").write_text("sed: 1")
    (tmp_path / "broken.yaml").write_text("seed: [")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(str(tmp_path / "mine.yaml"))
    assert str(caught.value).startswith(str(tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def blamed(tmp_path, below="", own="", words=(), run_config=None):
    """The place that an error names, without its folder."""
    (tmp_path / "below.yaml").write_text(below)
    (tmp_path / "mine.yaml").write_text(f"extends: below.yaml\n{own}")
    if run_config is not None:
        (tmp_path / "config.yaml").write_text(run_config)
    with pytest.raises(UserError) as caught:
        load_config(str(tmp_path / "mine.yaml"), list(words), None if run_config is None else tmp_path / "config.yaml")
    return str(caught.value.where).rpartition("/")[2]


TINY_STEP = "therapist: {tokens_per_step: 100}"
DEEPSPEED = "training: {engine: deepspeed, zero_stage: 3}"


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        # A value is bad by itself: the last one that gave it.
        ({"below": "seed: x"}, "below.yaml"),
        ({"below": "seed: 1", "own": "seed: x"}, "mine.yaml"),
        ({"below": "seed: x", "own": "threads: 2", "words": ["threads=3"]}, "below.yaml"),
        ({"below": "seed: x", "own": "seed: x"}, "mine.yaml"),
        ({"own": "seed: 1", "words": ["seed=x"]}, "command line"),
        ({"run_config": "seed: x", "words": ["threads=3"]}, "config.yaml"),
        ({"own": "training: {speakers: [nurse]}", "words": ["training.engine=torch"]}, "mine.yaml"),
        ({"own": "therapist: {lora: {targets: [q_prj]}}", "words": ["therapist.lora.rank=3"]}, "mine.yaml"),
        # A key name or a text that is in the message is no hint.
        ({"own": "split: {validation: seed}", "words": ["seed=1", "split.seed=2"]}, "mine.yaml"),
        ({"own": "therapist: {lora: {rank: 0}}", "words": ["therapist.lora.alpha=3", "therapist.seed=1"]}, "mine.yaml"),
        # A key that there is not.
        ({"run_config": "sed: 1", "words": ["seed=1"]}, "config.yaml"),
        ({"below": "sed: 1", "words": ["seed=1"]}, "below.yaml"),
        ({"words": ["sed=1"]}, "command line"),
        # A value where a section belongs.
        ({"own": "model: foo", "words": ["model.path=x"]}, "mine.yaml"),
        ({"own": "model: foo"}, "mine.yaml"),
        # Values that do not fit together: the one that came last.
        ({"own": TINY_STEP, "words": ["therapist.patience=3", "seed=1"]}, "mine.yaml"),
        ({"below": TINY_STEP, "own": "therapist: {patience: 3}"}, "below.yaml"),
        ({"own": "therapist: {tokens_per_step: 2000}", "words": ["therapist.pack_tokens=4000"]}, "command line"),
        ({"below": DEEPSPEED, "own": "model: {weights: nf4}", "words": ["seed=1"]}, "mine.yaml"),
        ({"below": "model: {weights: nf4}", "own": DEEPSPEED, "words": ["model.device=cpu"]}, "mine.yaml"),
        ({"own": DEEPSPEED, "words": ["model.weights=nf4"]}, "command line"),
        ({"own": "therapist: {optimizer: adamw8bit}", "words": ["training.engine=deepspeed"]}, "command line"),
        ({"run_config": DEEPSPEED, "own": "model: {weights: nf4}", "words": ["model.device=cpu"]}, "mine.yaml"),
        # What is missing, or taken away with an address.
        ({"below": "evaluation: {patient_provider: {base_url: 'http://a/v1'}}", "words": ["seed=1"]}, "below.yaml"),
        (
            {
                "below": "evaluation: {judging: {provider: {base_url: 'http://a/v1'}}}",
                "words": ["evaluation.judging.provider.model=m"],
            },
            "below.yaml",
        ),
        (
            {
                "own": "evaluation: {judging: {provider: openai}}",
                "words": ["evaluation.judging.provider.base_url=http://a/v1"],
            },
            "command line",
        ),
        (
            {
                "own": "evaluation: {judging: {provider: {preset: openai, api_key_env: MINE}}}",
                "words": ["evaluation.judging.provider.base_url=http://a/v1"],
            },
            "command line",
        ),
        (
            {
                "own": "evaluation: {judging: {provider: {api_key_env: sk-1}}}",
                "words": ["evaluation.judging.provider.model=m"],
            },
            "mine.yaml",
        ),
    ],
)
def test_the_place_that_is_to_blame_is_named(tmp_path, places, expected):
    assert blamed(tmp_path, **places) == expected


def test_a_shipped_file_is_named_where_it_is_the_one(tmp_path):
    with pytest.raises(UserError, match=r"^command line: therapist.optimizer: adamw8bit is not tested under ZeRO"):
        load_config("llama3.1-8b-paper", ["training.engine=deepspeed"])
    with pytest.raises(UserError, match=r"^command line: model.weights: ZeRO-3 cannot shard"):
        load_config("llama3.1-8b-zero3", ["model.weights=nf4"])
    with pytest.raises(
        UserError, match=r"^configs/families/llama3.1-8b.yaml: 'path' in 'model.path.x' is not a section"
    ):
        load_config("llama3.1-8b-lora", ["model.path.x=1"])
    (tmp_path / "api.yaml").write_text("preset: openai\nstructure: jsn")
    with pytest.raises(UserError, match="api.yaml: structure: "):
        load_provider_config(str(tmp_path / "api.yaml"), ["model=m"])
