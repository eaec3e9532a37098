"""``cbtrain providers list`` and ``check``."""

import json

import pytest
from aiohttp import web
from loopback import background, completion, status

from cbtrain.cli.main import main
from cbtrain.providers.overrides import presets

KEY = "planted-secret-123"


def check(capsys, plan, *settings, name="openai"):
    """Exit status and what is said, on standard output and as an error."""
    with background(plan) as script:
        place = [f"base_url={script.url}", "api_key_env=OPENAI_API_KEY"] if name in presets() else []
        code = main(["providers", "check", name, *place, *settings])
    out, err = capsys.readouterr()
    assert KEY not in out + err
    return code, out, err, script


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


async def good(request):
    headers = {
        "x-ratelimit-account": KEY,
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-tokens": "29000",
        "Set-Cookie": f"k={KEY}",
    }
    return web.json_response(completion(json.dumps({"mood": "low"})), headers=headers)


def test_a_check_tells_what_an_api_can_do(capsys):
    code, out, err, script = check(capsys, lambda number, body: good)
    assert (code, err, len(script.bodies)) == (0, "", 1)
    facts = {line[:18].strip(): line[19:] for line in out.splitlines()}
    assert facts["answers"] == f"returned-name at {script.url}, asked for as gpt-4.1-mini"
    assert facts["structured answer"] == "asked for with a schema: valid"
    assert facts["tokens"] == "7 in the prompt, 3 in the answer"
    assert facts["cost"] == "$0.000008 for this call ($0.4 and $1.6 for a million tokens of prompt and of answer)"
    assert "x-ratelimit-limit-requests: 500" in out
    assert "Set-Cookie" not in out
    assert script.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_a_check_tells_what_an_api_does_not(capsys):
    code, out, _, script = check(
        capsys, lambda number, body: completion("Low, I think."), "sampling=false", "seed=false", "model=own-model"
    )
    assert code == 0
    assert "NOT valid: 'Low, I think.'" in out
    assert "not sent: the API chooses temperature and top-p" in out
    assert "unknown: the table of prices does not have own-model" in out
    assert not {"seed", "temperature"} & set(script.bodies[0])


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (status(401, f"no such key {KEY}"), "HTTP 401, permanent: no such key [key]. Check the key"),
        (status(404), "Check base_url and model"),
        (status(400, "unknown field: seed"), "unknown field: seed. If the message names a field"),
        (status(429, "no credit"), "HTTP 429, rate limit: no credit. Wait, or look at the account's"),
    ],
)
def test_a_failed_check_is_one_line_with_its_remedy(plan, told, capsys):
    code, out, err, script = check(capsys, lambda number, body: plan)
    assert (code, out, len(script.bodies)) == (2, "", 1)
    assert told in err
    assert err.count("\n") == 1


def test_what_can_be_checked(capsys, tmp_path, monkeypatch):
    file = tmp_path / "mine.yaml"
    with background(lambda number, body: good) as script:
        file.write_text(f"base_url: {script.url}\nmodel: m\n")
        assert main(["providers", "check", str(file)]) == 0
        assert "none: no key is used" in capsys.readouterr().out
        study = tmp_path / "study.yaml"
        study.write_text(f"evaluation: {{judging: {{provider: {{base_url: '{script.url}', api_key_env: JUDGE}}}}}}\n")
        monkeypatch.setenv("JUDGE", KEY)
        assert main(["providers", "check", "judge", "--config", str(study)]) == 0
        assert "unknown: the table of prices does not have gpt-4.1-mini" not in capsys.readouterr().out
        prices = tmp_path / "prices.yaml"
        prices.write_text("date: 2026-01-01\nmodels: {gpt-4.1-mini: {input: 100, output: 100}}\n")
        own = ["--config", str(study), f"providers.prices={prices}"]
        assert main(["providers", "check", "judge", *own]) == 0
        assert "$0.001000 for this call ($100 and $100 for" in capsys.readouterr().out
        assert main(["providers", "check", "patient", "--config", str(study)]) == 2
        assert "served on this machine" in capsys.readouterr().err
    assert main(["providers", "check", "opnai"]) == 2
    assert "opnai: no such config file. Did you mean 'openai'?" in capsys.readouterr().err
    assert main(["providers", "check", "openai", "modle=x"]) == 2
    assert "unknown key 'modle'" in capsys.readouterr().err
    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(["providers", "check", "openai"]) == 2
    assert capsys.readouterr().err.startswith("cbtrain: OPENAI_API_KEY: this environment variable holds the API key")


def test_the_list_names_every_preset_and_shows_no_key(capsys):
    assert main(["providers", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in presets())
    assert KEY not in out
