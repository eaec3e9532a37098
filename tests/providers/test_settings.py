"""Settings of one API: presets, how settings lie over others, addresses, and what may not stand in them."""

import datetime
import json

import pytest
import yaml
from pydantic import ValidationError

from cbtrain.config.loading import dump_config, load_config, load_provider_config, load_synthesis_config
from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.providers.config import DECIDING, ProviderConfig, ProvidersConfig
from cbtrain.providers.costs.prices import Price
from cbtrain.providers.formats.anthropic import AnthropicFormat
from cbtrain.providers.formats.gemini import GeminiFormat
from cbtrain.providers.formats.openai import OpenAIFormat
from cbtrain.providers.overrides import BASES, presets
from cbtrain.providers.providers import api_format_of, check
from cbtrain.providers.types import ChatRequest, Message

KEY = "planted-secret-123"

ONLY_WHEN = frozenset(
    "preset api_key_env price reuse stream connect_timeout_s idle_timeout_s attempt_timeout_s overall_deadline_s "
    "max_retries backoff_s first_in_flight max_in_flight tokens_per_minute".split()
)
"""What decides only when an answer comes, and what it costs."""


def asking(text):
    return ChatRequest((Message("user", text),), max_tokens=9)


def test_a_provider_is_its_preset_and_what_is_said_beside_it():
    plain = ProviderConfig.model_validate("deepseek")
    assert plain == ProviderConfig.model_validate({"preset": "deepseek"})
    changed = ProviderConfig.model_validate({"preset": "deepseek", "model": "deepseek-v4-pro"})
    assert (changed.model, changed.base_url, changed.structure) == ("deepseek-v4-pro", plain.base_url, "json_object")
    assert ProviderConfig.model_validate(changed.model_dump()) == changed
    with pytest.raises(ValidationError, match="unknown preset 'deepsek'. Did you mean 'deepseek'?"):
        ProviderConfig.model_validate("deepsek")


@pytest.mark.parametrize("name", presets())
def test_every_preset_opens(name, monkeypatch):
    config = ProviderConfig.model_validate(name)
    if config.api_key_env:
        monkeypatch.setenv(config.api_key_env, KEY)
    check(ProvidersConfig(), [("judge", config)])
    api_format = api_format_of(config)
    kinds = {"openai": OpenAIFormat, "anthropic": AnthropicFormat, "gemini": GeminiFormat}
    assert isinstance(api_format, kinds[config.kind])
    assert (api_format.model, api_format.base_url, api_format.structure) == (
        config.model,
        config.base_url,
        config.structure,
    )
    assert config.base_url == BASES.get(config.kind, config.base_url)
    body = api_format.request(asking("x")).body
    assert set(config.extra_body) <= set(body)
    assert ("temperature" in json.dumps(body)) == config.sampling


def test_what_decides_an_answer_is_told_apart_from_what_decides_its_time():
    assert set(ProviderConfig.model_fields) == DECIDING | ONLY_WHEN
    assert not DECIDING & ONLY_WHEN
    one = ProviderConfig(base_url="http://x/v1", model="m")
    assert one.identity() == one.model_copy(update={"max_retries": 3, "stream": True}).identity()
    assert one.identity() != one.model_copy(update={"seed": False}).identity()


def test_a_judge_may_be_changed_in_part_or_be_a_preset():
    judge = load_config(None, ["evaluation.judging.provider.model=gpt-5"]).evaluation.judging.provider
    assert (judge.model, judge.api_key_env) == ("gpt-5", "CBTRAIN_JUDGE_API_KEY")
    for given in ("evaluation.judging.provider=anthropic", "evaluation.judging.provider.preset=anthropic"):
        judge = load_config(None, [given]).evaluation.judging.provider
        assert (judge.kind, judge.api_key_env, judge.sampling) == ("anthropic", "ANTHROPIC_API_KEY", False)
    patient = load_config(None, ["evaluation.patient_provider=vllm"]).evaluation.patient_provider
    assert patient.base_url == "http://127.0.0.1:8000/v1"
    with pytest.raises(UserError, match=r"evaluation.patient_provider: unknown preset 'vlm'. Did you mean 'vllm'\?"):
        load_config(None, ["evaluation.patient_provider=vlm"])


ANTHROPIC = ("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", False)
DEEPSEEK = ("openai", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", True)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["provider.kind=anthropic", "provider.model=claude-x"], ANTHROPIC),
        (["provider.model=claude-x", "provider.preset=anthropic"], ANTHROPIC),
        (["provider=anthropic", "provider.model=claude-x"], ANTHROPIC),
        (["provider.model=claude-x", "provider=deepseek"], DEEPSEEK),
        (["provider.preset=deepseek", "provider.model=claude-x"], DEEPSEEK),
    ],
)
@pytest.mark.parametrize("ground", ["nothing", "a run's settings", "a preset's settings"])
def test_another_api_takes_nothing_of_the_one_before(words, found, ground, tmp_path):
    """Least of all its address: a key must not go to another company."""
    below = tmp_path / "config.yaml"
    earlier = ["evaluation.judging.provider=gemini"] if ground == "a preset's settings" else []
    below.write_text(dump_config(load_config(None, earlier)))
    words = [f"evaluation.judging.{word}" for word in words]
    judge = load_config(None, words, None if ground == "nothing" else below).evaluation.judging.provider
    assert (judge.kind, judge.base_url, judge.api_key_env, judge.sampling) == found
    assert judge.model == "claude-x"
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(load_config(None, words)))
    assert load_config(str(again)).evaluation.judging.provider == judge


PRESETS = [f"preset={name}" for name in presets()]
KINDS = ["kind=openai", "kind=anthropic", "kind=gemini"]


def provider_of(file, *words):
    """The provider that a file and ``words`` describe, None where they are refused."""
    try:
        return load_provider_config(str(file), list(words))
    except UserError:
        return None


@pytest.mark.parametrize("own", ["", "api_key_env: WORK_KEY", "base_url: 'http://proxy/v1'\napi_key_env: WORK_KEY"])
@pytest.mark.parametrize("dumped", [False, True])
def test_no_key_goes_to_another_company_whatever_is_said_over_what(own, dumped, tmp_path):
    """All pairs of presets and kinds, the first in a file, with or without settings of its own, as written by hand or as
    a run writes it down; the second over it."""
    file = tmp_path / "mine.yaml"
    for below in PRESETS + KINDS:
        name, _, value = below.partition("=")
        model = "model: m\n" if name == "kind" else ""
        address = "base_url: 'http://local/v1'\n" if below == "kind=openai" and "base_url" not in own else ""
        file.write_text(f"{name}: {value}\n{model}{address}{own}\n")
        before = provider_of(file)
        if dumped:
            file.write_text(yaml.safe_dump(before.model_dump(mode="json")))
        for preset in presets():
            assert provider_of(file, f"preset={preset}") == ProviderConfig.model_validate(preset)
            with_model = provider_of(file, "model=m2", f"preset={preset}")
            assert with_model == ProviderConfig.model_validate({"preset": preset, "model": "m2"})
        for kind in ("openai", "anthropic", "gemini"):
            found = provider_of(file, f"kind={kind}", "model=m2")
            if kind == before.kind:
                assert found == before.model_copy(update={"model": "m2"})
            elif kind == "openai":
                assert found is None  # the address is missing
            else:
                assert found == ProviderConfig.model_validate({"kind": kind, "model": "m2"})


@pytest.mark.parametrize("below", ["openai", "anthropic", "gemini", "deepseek", "{base_url: 'http://a/v1', model: m}"])
def test_a_key_does_not_move_to_another_host_with_its_settings(below, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"preset: {below}\n" if "{" not in below else below)
    before = load_provider_config(str(file))
    moved = "base_url=https://elsewhere.example/v1"
    if before.api_key_env is None:
        assert load_provider_config(str(file), [moved]).api_key_env is None
    else:
        with pytest.raises(UserError, match="command line: api_key_env: base_url is not the host that the key is for"):
            load_provider_config(str(file), [moved])
    for order in ([moved, "api_key_env=MINE"], ["api_key_env=MINE", moved]):
        found = load_provider_config(str(file), order)
        assert (found.base_url, found.api_key_env) == ("https://elsewhere.example/v1", "MINE")
        assert (found.kind, found.model) == (before.kind, before.model)
    assert load_provider_config(str(file), [moved, "api_key_env=null"]).api_key_env is None
    host = before.base_url.rpartition("/")[0]
    assert load_provider_config(str(file), [f"base_url={host}/v9"]).api_key_env == before.api_key_env


def test_the_default_judges_key_stays_with_its_host(tmp_path):
    moved = "evaluation.judging.provider.base_url=https://api.deepseek.com/v1"
    with pytest.raises(UserError, match="judging.provider.api_key_env: base_url is not the host"):
        load_config(None, [moved])
    ground = tmp_path / "config.yaml"
    ground.write_text(dump_config(load_config(None)))
    with pytest.raises(UserError, match="judging.provider.api_key_env: base_url is not the host"):
        load_config(None, [moved], ground)
    found = load_config(None, [moved, "evaluation.judging.provider.api_key_env=DEEPSEEK_API_KEY"], ground)
    assert found.evaluation.judging.provider.api_key_env == "DEEPSEEK_API_KEY"


@pytest.mark.parametrize("below", ["api_key_env: OPENAI_API_KEY", "{api_key_env: OPENAI_API_KEY, model: gpt-4.1}"])
@pytest.mark.parametrize("part", ["judging.provider", "patient_provider"])
def test_what_stands_for_a_default_goes_nowhere_else(below, part, tmp_path):
    """A file that names a key and no API means the default one's."""
    below = below if "{" in below else f"{{{below}}}"
    file = tmp_path / "study.yaml"
    file.write_text(f"evaluation: {{judging: {{provider: {below}}}}}" if "judging" in part else
                    f"evaluation: {{patient_provider: {below}}}")  # fmt: skip
    for words, found in ((["preset=deepseek"], "deepseek"), (["kind=anthropic", "model=claude-x"], None)):
        config = load_config(str(file), [f"evaluation.{part}.{word}" for word in words]).evaluation
        made = config.judging.provider if "judging" in part else config.patient_provider
        assert made == ProviderConfig.model_validate(found or {"kind": "anthropic", "model": "claude-x"})


def test_what_two_roles_share_in_a_file_is_changed_for_one(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("evaluation:\n  judging: {provider: &a {preset: openai}}\n  patient_provider: *a\n")
    found = load_config(str(file), ["evaluation.judging.provider.preset=deepseek"]).evaluation
    assert found.patient_provider == ProviderConfig.model_validate("openai")
    assert found.judging.provider == ProviderConfig.model_validate("deepseek")
    file.write_text("evaluation: &a\n  judging: *a\n")
    with pytest.raises(UserError, match="aliases"):
        load_config(str(file))


def test_an_apis_own_fields_are_not_ours(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: openrouter\nextra_body: {preset: one, base_url: 'http://a', api_key_env: Q, in: {a: 1}}\n")
    found = load_provider_config(
        str(file), ["extra_body.preset=two", "extra_body.base_url=http://b", "extra_body.in.b=2"]
    )
    assert found.extra_body == {"preset": "two", "base_url": "http://b", "api_key_env": "Q", "in": {"a": 1, "b": 2}}


def test_others_speak_the_openai_protocol_too():
    address = "https://generativelanguage.googleapis.com/v1beta/openai"
    made = ProviderConfig(base_url=address, model="m", api_key_env="GEMINI_API_KEY")
    assert (made.kind, made.base_url) == ("openai", address)


def test_a_key_does_not_go_out_unencrypted_unasked():
    with pytest.raises(UserError, match="http, not https"):
        load_provider_config("openai", ["base_url=http://api.openai.com/v1"])


def test_a_writer_may_be_another_api_than_its_files(tmp_path):
    written = load_synthesis_config("hermes", ["provider.preset=openai"]).provider
    assert written == ProviderConfig.model_validate("openai")
    with pytest.raises(UserError, match="provider.model: missing"):
        load_synthesis_config("hermes", ["provider.kind=anthropic"])


def test_a_price_is_that_of_its_model():
    priced = ["price={input: 1, output: 2}"]
    assert load_provider_config("openai", priced).price == Price(input=1, output=2)
    assert load_provider_config("openai", [*priced, "model=gpt-5"]).price == Price(input=1, output=2)
    study = {"evaluation": {"patient_provider": {"preset": "openai", "price": {"input": 1, "output": 2}}}}
    assert StudyConfig.model_validate(study).evaluation.patient_provider.price


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"kind": "anthropic", "base_url": "https://api.openai.com/v1", "api_key_env": "K"},
            "api.openai.com speaks openai, not anthropic",
        ),
        (
            {"kind": "anthropic", "base_url": "https://proxy/v1"},
            "api_key_env: base_url is not the host that the key is for",
        ),
        ({"kind": ["gemini"]}, "kind: must be 'openai'"),
        ({"preset": ["gemini"]}, "preset: must be a text"),
        ({"base_url": "http://a..b/v1"}, "not an address like"),
        ({"base_url": f"http://{'a' * 64}.com/v1"}, "not an address like"),
        ({"extra_body": {"n": 3}}, "n asks for answers that would be paid for"),
        ({"extra_body": {"best_of": 2}}, "best_of asks for answers"),
        ({"extra_body": {"generationConfig": {"candidateCount": 2}}}, "candidateCount asks for answers"),
        ({"preset": "openai", "kind": "gemini"}, "the preset 'openai' has another kind"),
        ({"base_url": "http://me:sekrit@host/v1"}, "no key, password"),
        ({"base_url": "https://host/v1?key=sekrit"}, "no key, password"),
        ({"base_url": "localhost:8000/v1"}, "not an address like"),
        ({"base_url": "ftp://host/v1"}, "not an address like"),
        ({"base_url": "http://[::1"}, "not an address like|Invalid"),
        ({"base_url": "http://host:99999/v1"}, "not an address like"),
        ({"base_url": ""}, "not an address like"),
        ({"base_url": 3}, "base_url: must be a text"),
        ({"model": ""}, "a length of at least 1"),
        ({"api_key_env": "AIzaSyD-sekrit"}, "api_key_env"),
        ({"api_key_env": "AIzaSyDsekrit"}, "api_key_env"),
        ({"extra_body": {"x": float("nan")}}, "not plain JSON"),
        ({"extra_body": {"x": datetime.date(2020, 1, 1)}}, "not plain JSON"),
        ({"kind": "gemini", "extra_body": {"generationConfig": 3}, "api_key_env": None}, "generationConfig"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line_without_secrets(given, problem, tmp_path):
    given = {"base_url": "http://host/v1", "model": "m"} | given
    if given.get("preset"):
        given.pop("base_url")
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(given))
    with pytest.raises(UserError, match=problem) as caught:
        load_provider_config(str(file))
    assert "sekrit" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_has_no_slash_at_its_end():
    assert ProviderConfig(base_url="http://host/v1/", model="m") == ProviderConfig(base_url="http://host/v1", model="m")
