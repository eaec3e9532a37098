import pytest
import yaml

from cbtrain.config.loading import dump_config, load_config
from cbtrain.errors import UserError


def test_defaults_round_trip_through_yaml(tmp_path):
    config = load_config(None)
    file = tmp_path / "c.yaml"
    file.write_text(dump_config(config))
    assert load_config(str(file)) == config


def test_overrides_reach_any_depth():
    config = load_config(
        None, ["therapist.lora.rank=8", "therapist.learning_rate=1e-4", "evaluation.seeds=3", "seed=7"]
    )
    assert config.therapist.lora.rank == 8
    assert config.therapist.learning_rate == 1e-4
    assert config.therapist.lora.alpha == 32  # the tiny model's default stays
    assert (config.evaluation.seeds, config.seed) == (3, 7)


def test_a_named_model_takes_the_learning_rate_of_real_models():
    assert load_config(None).therapist.learning_rate == 5e-3
    assert load_config(None, ["model.path=some/model"]).therapist.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "therapist:\n  lerning_rate: 1",
            r"unknown key 'therapist.lerning_rate'. Did you mean 'therapist.learning_rate'\?",
        ),
        (
            "evaluation:\n  judging:\n    ratr: cue",
            r"unknown key 'evaluation.judging.ratr'. Did you mean 'evaluation.judging.rater'\?",
        ),
        ("seed: 2026-13-45", r"malformed YAML \(month must be in 1..12"),
        ("seed: [", r"c\.yaml:\d+: malformed YAML"),
        ("therapist:\n  seed: 1\n  seed: 2", r"c\.yaml:3: malformed YAML \(key 'seed' comes twice"),
        ("- 1", "not a mapping"),
        ("therapist:\n  learning_rate: fast", "therapist.learning_rate: .*number.*'fast'"),
        ("therapist:\n  lora:\n    rank: 0", "therapist.lora.rank: must be at least 1"),
        ("seed: true", "seed: must be a number. Got True"),
        ("training: {zero_stage: on}", "training.zero_stage: must be a number. Got True"),
        ("therapist: {lora: {rank_pattern: {q_proj: yes}}}", "rank_pattern: must be a number. Got True"),
        ("therapist: {token_budget: 1:30:00}", "token_budget: .*whole number.*'1:30:00'"),
        ("therapist: {learning_rate: 1:30.5}", "learning_rate: .*number.*'1:30.5'"),
        ("seed: !!binary aGVsbG8=", r"malformed YAML \(could not determine a constructor"),
        ("seed: !!bool maybe", r"malformed YAML \(a value does not fit its tag"),
        ("seed: !!int ''", r"malformed YAML \(a value does not fit its tag"),
        ("{1: a, 0x1: b}", r"malformed YAML \(key '0x1' comes twice"),
        ("base:\n  method: hole", "base.method: unknown method 'hole'. Known: dora, full, "),
    ],
)
def test_bad_configs_are_one_clear_line(tmp_path, text, message):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_config(str(file))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_bad_names_and_overrides():
    with pytest.raises(UserError, match="no such config file"):
        load_config("nowhere")
    with pytest.raises(UserError, match="'seed' is not key=value"):
        load_config(None, ["seed"])
    with pytest.raises(UserError, match=r"unknown key 'sed'. Did you mean 'seed'\?"):
        load_config(None, ["sed=3"])
    with pytest.raises(UserError, match="'seed' in 'seed.x' is not a section"):
        load_config(None, ["seed=1", "seed.x=3"])


def test_dump_is_readable_yaml():
    assert yaml.safe_load(dump_config(load_config(None)))["evaluation"]["sessions_in_flight"] == 16


def test_a_part_of_a_section_leaves_the_rest_of_its_defaults():
    config = load_config(None, ["evaluation.judging.provider.model=m", "evaluation.therapist.temperature=0.5"])
    judge = config.evaluation.judging.provider
    assert (judge.model, judge.api_key_env) == ("m", "CBTRAIN_JUDGE_API_KEY")
    assert judge.base_url.startswith("https://")
    assert (config.evaluation.therapist.temperature, config.evaluation.therapist.max_tokens) == (0.5, 120)
    assert load_config(None, ["evaluation.patient.temperature=0.5"]).evaluation.patient.max_tokens == 80


def test_overrides_reach_into_what_a_dumped_config_leaves_empty(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(load_config(None)))
    config = load_config(
        str(file), ["evaluation.patient_provider.base_url=http://x/v1", "evaluation.patient_provider.model=m"]
    )
    assert config.evaluation.patient_provider.base_url == "http://x/v1"


def test_settings_over_those_of_a_run(tmp_path):
    run_config, file = tmp_path / "config.yaml", tmp_path / "mine.yaml"
    run_config.write_text(dump_config(load_config(None, ["corpus.path=c", "split.seed=4", "evaluation.seeds=5"])))
    file.write_text("evaluation: {seeds: 3}")
    config = load_config(str(file), ["split.seed=9"], run_config)
    assert (config.corpus.path, config.evaluation.seeds, config.split.seed) == ("c", 3, 9)


@pytest.mark.parametrize("path", ["2024", "a: b", "x #y", "null.txt", "[a]", "yes"])
def test_a_path_is_taken_as_it_stands(path):
    assert load_config(None, [f"corpus.path={path}"]).corpus.path == path


def test_texts_and_nothing():
    assert load_config(None, ["tokens.therapist_system="]).tokens.therapist_system == ""
    assert load_config(None, ["model.path=null"]).model.path is None
    assert load_config(None, ["split.test=[a, b]"]).split.test == ["a", "b"]


@pytest.mark.parametrize("text", ["model: foo", "evaluation: 3", "therapist: []"])
def test_a_value_where_a_section_belongs(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=text.partition(":")[0]):
        load_config(str(tmp_path / "c.yaml"))
    with pytest.raises(UserError, match="command line: model: "):
        load_config(None, ["model=foo"])


def test_a_key_pasted_for_its_name_is_not_repeated():
    with pytest.raises(UserError, match="api_key_env") as caught:
        load_config(None, ["evaluation.judging.provider.api_key_env=sk-abc123"])
    assert "sk-abc" not in str(caught.value)


def test_abbreviations_are_understood():
    with pytest.raises(UserError, match="Did you mean 'therapist.learning_rate'"):
        load_config(None, ["therapist.lr=3"])


@pytest.mark.fault("F12")
@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["seed=1", "seed=2"], "seed is given twice, with different values. Give it once"),
        (["therapist.lora.rank=8", "therapist.lora={rank: 4}"], "therapist.lora.rank is given twice"),
        (
            ["evaluation.patient_provider={model: m, model: n}"],
            "patient_provider: malformed YAML .key 'model' comes tw",
        ),
        (["evaluation.patient_provider={model: m"], "patient_provider: malformed YAML"),
        (["seed=true"], "seed: must be a number. Got True"),
        (["seed=!!binary aGVsbG8="], "seed: must be a whole number"),
    ],
)
def test_what_is_given_twice_or_is_no_number_is_refused(overrides, problem):
    with pytest.raises(UserError, match=f"^command line: .*{problem}"):
        load_config(None, overrides)


@pytest.mark.fault("F12")
@pytest.mark.parametrize("number", ["100000", "0100000", "100_000", "0x186A0", "100000.0"])
def test_numbers_are_read_as_people_mean_them(number, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(f"therapist: {{token_budget: {number}, lora: {{dora: yes}}}}\nsplit: {{test: [007, 12:30]}}\n")
    config = load_config(str(file), [f"patient.token_budget={number}", "seed=1", "seed=1"])
    assert config.therapist.token_budget == config.patient.token_budget == 100_000
    assert (config.therapist.lora.dora, config.split.test) == (True, ["007", "12:30"])
    # Written by older versions too, which quote what YAML 1.1 takes for a number.
    assert load_config(None, [], _saved(dump_config(config), tmp_path)) == config


def _saved(text, folder):
    (folder / "run.yaml").write_text(text)
    return folder / "run.yaml"
