"""The configs that are shipped, ``cbtrain config check`` and ``list``, and what a bad config is told."""

import importlib.resources

import pytest
import yaml

from cbtrain.cli.main import main
from cbtrain.config.loading import dump_config, load_config, load_synthesis_config
from cbtrain.config.schema import StudyConfig
from cbtrain.config.sources import first_comment, shipped_configs

MODELS = {
    "llama3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B-Instruct",
    "mistral-7b-v0.3": "mistralai/Mistral-7B-Instruct-v0.3",
}
BASES = {
    "llama3.1-8b": "meta-llama/Llama-3.1-8B",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B",
    "mistral-7b-v0.3": "mistralai/Mistral-7B-v0.3",
}
RECIPES = ("lora", "qlora", "paper", "course", "zero3")
OF_MODELS = [f"{model}-{recipe}" for model in MODELS for recipe in RECIPES]
DEEPSPEED = "training: {engine: deepspeed"


def check(capsys, *sources):
    """Exit status, standard output and standard error of ``cbtrain config check``."""
    status = main(["config", "check", *map(str, sources)])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


@pytest.mark.parametrize("name", shipped_configs())
def test_a_shipped_config_resolves_to_the_same_after_a_dump(name, tmp_path):
    config = load_config(name)
    (tmp_path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(str(tmp_path / "config.yaml")) == config
    # As `cbtrain evaluate --run` does: the run's own settings are the ground.
    assert load_config(None, ["evaluation.seeds=1"], tmp_path / "config.yaml").therapist == config.therapist


def test_every_shipped_config_is_checked_and_listed(capsys):
    names, synthesis = shipped_configs(), shipped_configs("synthesis")
    status, out, err = check(capsys, *names, *synthesis)
    assert (status, err) == (0, [])
    assert out == [f"ok: {name} (study)" for name in names] + [f"ok: {name} (synthesis)" for name in synthesis]
    status, out, err = check(capsys, "quick", "paper", "therapist.pack_tokens=8")
    assert (status, out, len(err)) == (1, [], 2)
    assert all("command line: therapist.pack_tokens" in line for line in err)
    assert main(["config", "list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    for name in (*names, *synthesis):
        (line,) = [line for line in listed if line.split()[:1] == [name]]
        assert len(line) > len(name) + 20
    assert load_synthesis_config("hermes").sessions == 20


@pytest.mark.parametrize("name", OF_MODELS)
def test_a_config_of_a_model_says_what_it_is_and_how_it_is_run(name):
    config = load_config(name)
    model = next(model for model in MODELS if name.startswith(model))
    assert config.model.path == (BASES if name.endswith("-paper") else MODELS)[model]
    assert config.training.speakers == ["therapist"]
    assert config.therapist.method == "lora"
    assert len(config.therapist.lora.targets) == 7
    assert first_comment(name).endswith(".")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_says_how_it_is_run(recipe):
    text = (importlib.resources.files("cbtrain.configs") / "recipes" / f"{recipe}.yaml").read_text("utf-8")
    comment = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert f"--config FAMILY-{recipe} corpus.path=…" in comment
    assert "evaluation.patient_provider.model=" in comment
    assert "not yet measured" in comment


@pytest.mark.parametrize("model", MODELS)
def test_recipes_are_what_their_names_say(model):
    lora, qlora, paper = (load_config(f"{model}-{recipe}") for recipe in ("lora", "qlora", "paper"))
    assert (lora.model.weights, qlora.model.weights, paper.model.weights) == ("bf16", "nf4", "nf4")
    for config in (lora, qlora):
        assert (config.tokens.recipe, config.therapist.supervise) == ("whole", None)
        assert config.therapist.tokens_per_step % config.therapist.pack_tokens == 0
        assert config.therapist.max_epochs == 3
    assert lora.therapist.lora == qlora.therapist.lora
    # What the reference says of the study.
    stage = paper.therapist
    assert (stage.lora.rank, stage.lora.alpha, stage.lora.dropout) == (16, 16, 0)
    assert (stage.learning_rate, stage.schedule, stage.optimizer) == (2e-4, "linear", "adamw8bit")
    assert (stage.weight_decay, stage.max_epochs, stage.pack_tokens, stage.seed) == (0.01, 1, 10_000, 3407)
    assert stage.warmup == pytest.approx(100 / 1604, abs=1e-4)
    assert (paper.tokens.recipe, paper.tokens.format, stage.supervise) == ("paper", "alpaca", "everything")


def test_papers_recipe_is_one_for_all_models():
    made = [load_config(f"{model}-paper") for model in MODELS]
    for config in made:
        config.model.path = None
    assert made[0] == made[1] == made[2]
    assert made[0].corpus == load_config("paper").corpus


def test_long_courses_and_several_nodes():
    course, zero3 = load_config("llama3.1-8b-course"), load_config("llama3.1-8b-zero3")
    assert (course.tokens.document, course.therapist.pack_tokens) == ("course", 131_072)
    assert course.therapist.activation_checkpointing == "auto"
    assert (zero3.training.engine, zero3.training.zero_stage) == ("deepspeed", 3)
    assert zero3.therapist.packs_per_step == 16
    assert zero3.model.weights == "bf16"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # An unknown key: the nearest of its section, or the same name in another one.
        (
            "therapist: {lerning_rate: 1}",
            "unknown key 'therapist.lerning_rate'. Did you mean 'therapist.learning_rate'?",
        ),
        ("learning_rate: 1", "unknown key 'learning_rate'. Did you mean 'therapist.learning_rate'?"),
        ("pack_tokens: 1", "unknown key 'pack_tokens'. Did you mean 'therapist.pack_tokens'?"),
        ("therapist: {rank: 1}", "unknown key 'therapist.rank'. Did you mean 'therapist.lora.rank'?"),
        ("therapist: {zero_stage: 3}", "unknown key 'therapist.zero_stage'. Did you mean 'training.zero_stage'?"),
        ("format: plain", "unknown key 'format'. Did you mean 'corpus.format' or 'tokens.format'?"),
        (
            "tokens: {weights: [{mach: x}]}",
            "unknown key 'tokens.weights.0.mach'. Did you mean 'tokens.weights.0.match'?",
        ),
        ("modle: {path: x}", "unknown key 'modle'. Did you mean 'model'?"),
        ("1: x", "unknown key '1'. Known: base, "),
        # A wrong type or value.
        ("therapist: {learning_rate: fast}", "therapist.learning_rate: must be a number"),
        ("therapist: {token_budget: 1e6}", "Got '1e6'. Write it as 1000000."),
        (
            "therapist: {schedule: cosinus}",
            "therapist.schedule: must be 'constant', 'linear' or 'cosine'. Got 'cosinus'. Did you mean 'cosine'?",
        ),
        ("training: {zero_stage: 4}", "training.zero_stage: must be 0, 1, 2 or 3. Got 4."),
        (
            "training: {speakers: [nurse]}",
            "training.speakers.0: must be 'patient' or 'therapist'. Got 'nurse'.",
        ),
        ("split: {validation: much}", "split.validation: must be a number or a list. Got 'much'."),
        ("therapist: 3", "therapist: must be a section of keys and values. Got 3."),
        (
            "therapist: {lora: {targets: [q_prj]}}",
            "therapist.lora.targets: unknown target 'q_prj'. Did you mean 'q_proj'?",
        ),
        # What does not go together.
        ("therapist: {tokens_per_step: 100}", "therapist: tokens_per_step 100 is less than one pack (1024)"),
        (DEEPSPEED + "}\ntherapist: {optimizer: adamw8bit}", "therapist.optimizer: adamw8bit is not tested under ZeRO"),
        (DEEPSPEED + "}\npatient: {optimizer: paged_adamw}", "patient.optimizer: paged_adamw is not tested under ZeRO"),
        (DEEPSPEED + "}\nbase: {optimizer: adamw8bit}", "base.optimizer: adamw8bit is not tested under ZeRO"),
        (DEEPSPEED + "}\ntherapist: {lora_plus_ratio: 16}", "therapist.lora_plus_ratio: ZeRO takes one learning rate"),
        (DEEPSPEED + ", zero_stage: 3}\nmodel: {weights: nf4}", "model.weights: ZeRO-3 cannot shard"),
        (DEEPSPEED + ", zero_stage: 3}\ntherapist: {lora: {dora: true}}", "therapist.lora.dora: its norm needs"),
        (
            DEEPSPEED + ", zero_stage: 3}\ntherapist: {lora: {modules_to_save: [lm_head]}}",
            "therapist.lora.modules_to_save: not tested under ZeRO-3; set training.zero_stage to 1 or 2",
        ),
    ],
)
def test_a_bad_file_is_one_line_and_status_1(tmp_path, capsys, text, message):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    status, out, err = check(capsys, file)
    assert (status, out) == (1, [])
    assert len(err) == 1
    assert err[0].startswith(f"cbtrain: {file}: ")
    assert message in err[0]


@pytest.mark.parametrize(
    "text",
    [
        # Stages that are not trained, and engines and stages that can.
        DEEPSPEED + ", speakers: [therapist]}\nmodel: {path: x}\npatient: {optimizer: adamw8bit}",
        DEEPSPEED + "}\nmodel: {path: x}\nbase: {optimizer: adamw8bit}",
        DEEPSPEED + ", zero_stage: 2}\nmodel: {weights: nf4}\ntherapist: {lora: {dora: true}, optimizer: sgd}",
        DEEPSPEED + ", zero_stage: 3}\ntherapist: {method: full, lora: {dora: true}}",
        "training: {zero_stage: 3}\nmodel: {weights: nf4}\ntherapist: {lora_plus_ratio: 16, optimizer: adamw8bit}",
    ],
)
def test_what_goes_together_is_left_alone(tmp_path, text):
    (tmp_path / "good.yaml").write_text(text)
    assert isinstance(load_config(str(tmp_path / "good.yaml")), StudyConfig)


def test_all_files_are_checked_where_one_is_bad(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("sed: 1")
    (tmp_path / "writing.yaml").write_text("provider: {base_url: http://x/v1, model: m}\nsessions: 40")
    (tmp_path / "good.yaml").write_text("provider: {base_url: http://x/v1, model: m}\nseed: 1")
    status, out, err = check(
        capsys, tmp_path / "bad.yaml", "quick", tmp_path / "writing.yaml", "quik", tmp_path / "good.yaml"
    )
    assert status == 1
    assert out == ["ok: quick (study)", f"ok: {tmp_path / 'good.yaml'} (synthesis)"]
    assert [line.partition(": ")[2] for line in err] == [
        f"{tmp_path / 'bad.yaml'}: unknown key 'sed'. Did you mean 'seed'?",
        f"{tmp_path / 'writing.yaml'}: sessions: must be at most 20. Got 40.",
        "quik: no such config file. Did you mean 'quick'?",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "nothing to check"),
        (
            ["check", "--config", "quick"],
            "config check: unrecognized arguments: --config. See `cbtrain config check --help`.",
        ),
        (["list", "quick"], "config list: unrecognized arguments: quick"),
        (["chek", "quick"], "unknown command 'config chek'. Did you mean 'config check'?"),
        (["show", "quick", "paper"], "unexpected 'paper'"),
        (["show", "quick", "--config", "paper"], "two configs are named, quick and paper"),
    ],
)
def test_wrong_words_are_one_line(capsys, arguments, message):
    assert main(["config", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    "words",
    [
        ["config", "--config", "llama3.1-8b-qlora", "seed=3"],
        ["config", "show", "llama3.1-8b-qlora", "seed=3"],
        ["config", "show", "seed=3", "llama3.1-8b-qlora"],
        ["config", "show", "seed=3", "--config", "llama3.1-8b-qlora"],
    ],
)
def test_what_is_resolved_is_shown_with_where_it_comes_from(words, capsys):
    assert main(words) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == (
        "# Resolved from defaults, configs/families/llama3.1-8b.yaml, configs/recipes/lora.yaml, "
        "configs/recipes/qlora.yaml, command line: what comes later wins."
    )
    assert yaml.safe_load("\n".join(rest)) == load_config("llama3.1-8b-qlora", ["seed=3"]).model_dump(mode="json")


def test_how_transcripts_are_written_is_shown_too(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("extends: hermes\nsessions: 3")
    assert main(["config", "show", str(tmp_path / "mine.yaml")]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"# Resolved from defaults, configs/synthesis/hermes.yaml, {tmp_path / 'mine.yaml'}: ")
    assert yaml.safe_load(out)["sessions"] == 3
    assert main(["config", "show"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == load_config(None).model_dump(mode="json")
