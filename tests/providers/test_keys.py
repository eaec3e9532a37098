"""Keys show nowhere: not in what commands say, not in any file they leave, whatever an API sends back."""

import json

import pytest
from aiohttp import web
from command import cbtrain
from loopback import background, completion, status

from cbtrain.eval.rating.rubric_files import load_rubric

KEY = "sk-planted_Secret/123+xyz=="
RUBRIC = load_rubric()


async def echo(request):
    """An error that tells the whole request, as proxies do."""
    return web.json_response({"error": {"message": f"bad gateway: {dict(request.headers)}"}}, status=502)


def rating(text):
    found = {domain.id: {"evidence": [1], "reason": text, "score": 3} for domain in RUBRIC.domains}
    return completion(json.dumps(found))


def leaks(folder, *texts):
    """Where the key is, of all that was said and every file below ``folder``."""
    found = ["what was said" for text in texts if KEY in text or KEY.split("_")[1] in text]
    files = [path for path in folder.rglob("*") if path.is_file()]
    marks = [KEY.encode(), json.dumps(KEY)[1:-1].encode(), KEY.split("_")[1].encode()]
    return found + [str(path) for path in files if any(mark in path.read_bytes() for mark in marks)], len(files)


def run(folder, *arguments):
    return cbtrain(*arguments, cwd=folder, env={"PLANTED_KEY": KEY, "CBTRAIN_CACHE": str(folder / "cache")})


PLANS = {
    "echoed in failures": lambda number, body: echo if number % 3 else rating("fine"),
    "echoed in answers": lambda number, body: rating(f"your key is {KEY}"),
    "refused": lambda number, body: status(401, f"no such key: {KEY}"),
    "never JSON": lambda number, body: completion(f"Bearer {KEY}"),
}


@pytest.mark.parametrize("plan", PLANS)
def test_keys_are_in_no_output_of_a_run(plan, tmp_path):
    (tmp_path / "s.txt").write_text("Patient: I feel low.\nTherapist: What went through your mind?\n" * 3)
    with background(PLANS[plan]) as script:
        provider = f"{{base_url: '{script.url}', model: m, api_key_env: PLANTED_KEY, max_retries: 3, backoff_s: 0.01}}"
        judge = [f"evaluation.judging.provider={provider}", "evaluation.judging.rater=llm"]
        traffic = ["providers.record=tape.jsonl"]
        rated = run(tmp_path, "rate", "corpus.path=s.txt", "--out", "rated", "--allow-upload", *judge, *traffic)
        written = run(tmp_path, "synthesize", "--config", "hermes", "--out", "written", "sessions=1", "attempts=1",
                      f"provider={provider}", *traffic)  # fmt: skip
        shown = run(tmp_path, "config", *judge)
        (tmp_path / "mine.yaml").write_text(f"base_url: {script.url}\nmodel: m\napi_key_env: PLANTED_KEY\n")
        checked = run(tmp_path, "providers", "check", "mine.yaml")
        assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in script.headers)
        assert len(script.bodies) >= 3
    said = [text for done in (rated, written, shown, checked) for text in (done.stdout, done.stderr)]
    assert "Traceback" not in "".join(said)
    found, files = leaks(tmp_path, *said)
    assert found == []
    assert files >= 5
    assert "PLANTED_KEY" in shown.stdout
    if plan == "echoed in answers":
        assert rated.returncode == 0, rated.stderr
        assert "your key is [key]" in (tmp_path / "rated" / "events.jsonl").read_text()
