"""``cbtrain show`` prints what an API received and sent, to the letter, and nothing that is secret."""

import json

import pytest
from aiohttp import web
from chromium import ABSENT, ARGUMENTS, CHROMIUM
from command import cbtrain
from loopback import background, completion
from study_files import model_with_adapters, words_for, write_study

from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.journal import read
from cbtrain.study.session_log.sessions import read_requests, read_sessions

KEY = "sk-planted_Secret/123+xyz=="
RUBRIC = load_rubric()


class Api:
    """Patient, therapist and judge. Keeps every body that it received with the text that it sent for it: the first
    request gets a 429, the third is cut off, and the key comes back in an answer."""

    def __init__(self):
        self.exchanges = []

    def __call__(self, number, body):
        async def reply(request):
            status, headers = 200, {}
            if body["model"] == "judge":
                text = json.dumps(completion(json.dumps(ratings(body))))
            else:
                text = json.dumps(completion(f"<think>Be low.</think>Patient: {words_for(body)} {KEY}"))
            if number == 1:
                status, text, headers = 429, f'{{"error": {{"message": "slow down, {KEY}"}}}}', {"Retry-After": "0.01"}
            if number == 3:
                response = web.StreamResponse(headers={"Content-Length": "1000"})
                await response.prepare(request)
                await response.write(b'{"choices": [{"mess')
                request.transport.close()
                self.exchanges.append((body, 200, '{"choices": [{"mess'))
                return response
            self.exchanges.append((body, status, text.replace(KEY, "[key]")))
            return web.Response(text=text, status=status, headers=headers, content_type="application/json")

        return reply


def ratings(body):
    domains = body["response_format"]["json_schema"]["schema"]["required"]
    return {domain: {"evidence": [1], "reason": "so", "score": 3} for domain in domains}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A study of an API and a model on this machine, both with the same patients, evaluated twice: all paid answers of
    the second run are kept ones."""
    folder = tmp_path_factory.mktemp("show")
    model, api = model_with_adapters(folder / "tiny", adapters=()), Api()
    with background(api) as script:
        paid = {"base_url": script.url, "api_key_env": "PLANTED_KEY", "backoff_s": 0.01, "max_in_flight": 1}
        arms = {
            "local": {"model": str(model), "sampling": {"max_tokens": 8, "temperature": 0.5}},
            "api": {"provider": {"model": "therapist", **paid}},
        }
        judging = {"rater": "llm", "provider": {"model": "judge", **paid}}
        patient = {"model": "patient", **paid}
        study = write_study(folder / "study.yaml", arms, script.url, max_patients=1, max_turns=4, judging=judging,
                            patient_provider=patient, sessions_in_flight=1)  # fmt: skip
        env = {"PLANTED_KEY": KEY, "CBTRAIN_CACHE": str(folder / "cache")}
        for out in ("first", "second"):
            done = cbtrain("evaluate", str(study), "--out", out, cwd=folder, env=env)
            assert done.returncode == 0, done.stderr
    return folder, api


def show(folder, *arguments):
    done = cbtrain("show", *arguments, cwd=folder)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def shown_exchanges(folder, run, session):
    shown = json.loads(show(folder, run, session, "--raw", "--json"))
    parts = [*shown["turns"], *shown["ratings"], *filter(None, [shown["unsaid"]])]
    return [exchange for part in parts for exchange in part.get("exchanges", [])]


def test_what_is_shown_is_what_was_received_and_sent(run):
    folder, api = run
    listed = json.loads(show(folder, "first", "--json"))
    ended = sorted((row["arm"], row["length"], row["ending"]) for row in listed)
    assert ended == [("api", 4, "max_turns"), ("local", 4, "max_turns")]
    shown = [one for row in listed for one in shown_exchanges(folder, "first", row["session"])]
    sent = [(one["body"], one["status"], one["reply"]) for one in shown if not one["answer"]]
    canonical = lambda exchange: json.dumps(exchange, sort_keys=True)  # noqa: E731
    assert sorted(map(canonical, sent)) == sorted(map(canonical, api.exchanges))
    assert [list(body) for body, _, _ in sent[:1]] == [list(api.exchanges[0][0])]  # its fields in their order
    statuses = sorted((one["status"], one["attempt"]) for one in shown if one["problem"])
    assert statuses == [(200, 1), (429, 1)]
    # Both arms have the same patient, who opens with the same words: asked once.
    assert sum(one["answer"] is not None for one in shown) == 1
    again = [one for row in listed for one in shown_exchanges(folder, "second", row["session"])]
    assert again
    assert all(one["answer"] and one["status"] is None for one in again)
    assert {json.dumps(one["body"]) for one in again} == {json.dumps(one["body"]) for one in shown}


def test_text_of_a_session_has_facts_requests_and_replies(run):
    folder, api = run
    text = show(folder, "first", ".api.", "--raw")
    names = (
        ".api.",
        "returned-name",
        "seed ",
        "7 prompt + 3 answer tokens",
        "thinking removed 7",
        "finish reason stop",
    )
    assert all(name in text for name in names)
    assert "rating by judge, repeat 0 · ok" in text
    body, _, reply = api.exchanges[-1]
    assert reply in text
    assert "\n".join(f"    {line}" for line in json.dumps(body, ensure_ascii=False, indent=2).split("\n")) in text
    one = show(folder, "first", ".api.", "--turn", "2")
    assert "\n[2] therapist" in one
    assert "[1]" not in one


def test_a_model_on_this_machine_shows_prompt_sampling_and_tokens(run):
    folder, _ = run
    text = show(folder, "first", ".local.", "--turn", "2", "--raw")
    assert "You are" in text.split("after this system prompt:")[1]
    assert '"temperature": 0.5' in text
    turns = {event["index"]: event for event in read(folder / "first" / "events.jsonl") if event["kind"] == "turn" and ".local." in event["session"]}  # fmt: skip
    ids = turns[1].get("ids") or turns[1]["facts"]["drawn"]
    assert f"tokens drawn: {' '.join(map(str, ids))}" in text
    assert f"prompt: {turns[1]['facts']['prompt_tokens']:,} tokens" in text


def test_no_key_is_in_the_file_and_nobody_else_reads_it(run):
    folder, _ = run
    for out in ("first", "second"):
        path = folder / out / "requests.jsonl"
        assert b"planted" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0
    assert b"[key]" in (folder / "first" / "requests.jsonl").read_bytes()


def test_a_torn_tail_and_a_damaged_line_spoil_nothing_else(run, tmp_path):
    folder, _ = run
    for name in ("events.jsonl", "requests.jsonl"):
        (tmp_path / name).write_bytes((folder / "first" / name).read_bytes())
    path = tmp_path / "requests.jsonl"
    whole = path.read_bytes()
    names = [name for session in read_sessions(tmp_path).values() for name in session.requests]
    expected = read_requests(tmp_path, names)
    path.write_bytes(whole + whole[:100])
    assert read_requests(tmp_path, names) == expected
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0].replace(b"messages", b"massages"), *lines[1:]]))
    damaged = read_requests(tmp_path, names)
    assert damaged.damaged >= 1
    assert sum(map(len, damaged.exchanges.values())) == len(lines) - 1
    assert "damaged" in show(tmp_path, ".", ".api.", "--raw")
    path.unlink()
    assert "there is no requests.jsonl" in show(tmp_path, ".", ".api.", "--raw")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("nowhere",), "nowhere: no events.jsonl in it"),
        (("first", "nobody"), "first: no session 'nobody'"),
        (("first", "amara"), "first: 'amara' fits 2 sessions"),
        (("first", ".api.", "--turn", "9"), "no turn 9. It has turns 1 to 4."),
        (("first", "--raw"), "show: --turn and --raw are of one session"),
    ],
)
def test_bad_input_is_one_line(run, arguments, problem):
    done = cbtrain("show", *arguments, cwd=run[0])
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_report_unfolds_each_turn_to_its_request(run):
    """The page has the request without the turns before it, and puts them back."""
    folder, api = run
    if CHROMIUM is None:
        pytest.skip(ABSENT)
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page()
        page.goto((folder / "first" / "report.html").as_uri() + "#transcripts&session=amara.api.0")
        for summary in page.locator("#turns .asked summary").all():
            summary.click()
        page.locator("#turns .asked pre").first.wait_for()
        unfolded = page.locator("#turns .asked pre").all_text_contents()
        facts = page.locator("#turns .asked").first.text_content()
        browser.close()
    requests = [json.loads(text) for text in unfolded if text.startswith("{")]
    asked = [body for body, _, _ in api.exchanges]
    assert len(requests) == 4
    assert all(body in asked for body in requests)
    assert [len(body["messages"]) for body in requests] == [2, 2, 4, 4]
    assert any("<think>Be low.</think>Patient: I woke" in text for text in unfolded)
    assert "7 prompt tokens" in facts
