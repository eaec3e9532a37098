"""Many conversations at once with an API that fails in every way: a process of its own, whose log is what is believed.
Two hundred of them, two thousand requests, in ``make test-deep``."""

import json
import random
import subprocess
import sys
import time
import urllib.request
from collections import Counter

import pytest
from forked import Forked
from places import SHARED

from cbtrain.journal import read

KEY = "planted-secret-of-the-fault-test"

TIMED_OUT = {"hang", "blank for ever", "stalls", "keeps alive for ever"}
"""What a client gives up on; the API may have done the work."""

REFUSED = {"refusal": "refusal", "400": "permanent", "overflow": "context_overflow", "filtered": "content_filter"}


@pytest.fixture
def api(request):
    command = [sys.executable, SHARED / "fault_server.py", str(request.param), "0.09"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def log_of(url):
    with urllib.request.urlopen(f"{url}/log", timeout=30) as reply:
        return json.load(reply)


def start(settings):
    return Forked("conversing_worker:main", json.dumps(settings), env={"FAULT_TEST_KEY": KEY})


def settings(tmp_path, url, conversations, **provider_settings):
    provider = {
        **{"base_url": f"{url}/v1", "model": "fault-model", "api_key_env": "FAULT_TEST_KEY"},
        **{"attempt_timeout_s": 2.0, "idle_timeout_s": 1.0, "backoff_s": 0.05, "overall_deadline_s": 60.0},
        **{"max_retries": 12, "price": {"input": 1.0, "output": 1.0}},
        **provider_settings,
    }
    folders = {"folder": str(tmp_path / "run"), "answers": str(tmp_path / "answers.sqlite")}
    return {"provider": provider, "conversations": conversations, "turns": 10, **folders}


@pytest.mark.parametrize(("api", "kills", "stream"), [(0, 0, True), (1, 3, False)], indirect=["api"])
@pytest.mark.parametrize(
    "conversations", [pytest.param(100, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.deep)]
)
def test_every_turn_ends_and_nothing_is_paid_for_twice(api, kills, stream, conversations, tmp_path):
    """Answers in pieces, and on a disk that takes no recording; answers in one piece, killed again and again."""
    draw, asked = random.Random(kills), settings(tmp_path, api, conversations, stream=stream)
    if stream:
        asked |= {"record": "/dev/full"}
    for _ in range(kills):
        with start(asked) as worker:
            worker.stdout.readline()
            before = len(log_of(api))
            wanted = before + draw.randrange(conversations * 3 // 4, conversations * 5 // 2)
            while len(log_of(api)) < wanted:
                assert worker.poll() is None, worker.stderr.read()
                time.sleep(0.05)
            worker.kill()
    with start(asked) as worker:
        out, err = worker.communicate(timeout=300)
    assert worker.returncode == 0, err
    result, log = json.loads(out.splitlines()[-1]), log_of(api)
    assert result["left"] == [0, 0, 0, 0]

    # Every turn has an answer or a failure with a name, and each is what the API last did with it.
    turns = {f"{number}/{turn}" for number in range(conversations) for turn in range(10)}
    assert set(result["ended"]) == turns
    last = {entry["said"]: entry["done"] for entry in log}
    for turn, (how, what) in result["ended"].items():
        if last[turn] in REFUSED:
            assert REFUSED[last[turn]] in (how, what)
        elif last[turn] == "no text":
            assert (how, what) == ("stop", "")
        elif how != "failed":
            assert what == f"to {turn}"
        else:
            assert what in ("transient", "rate_limit")
    # What passes is repeated until it has passed: hardly any turn ends by it, and only on a machine that has no time.
    assert sum(what in ("transient", "rate_limit") for how, what in result["ended"].values() if how == "failed") <= 5

    # Nothing that was answered to the end is asked for again, but what was under way at a kill.
    events = list(read(tmp_path / "run" / "events.jsonl"))
    unknown = [event for event in events if event["kind"] == "unknown_outcome"]
    kept = {"ok", "drip", "blanks first", "renamed", "no last line", "unmarked"}
    answered = Counter(entry["said"] for entry in log if entry["done"] in kept and entry["sent"])
    twice = sum(count - 1 for count in answered.values())
    assert twice <= len(unknown)
    assert (kills == 0) == (not unknown)
    # Requests beyond the first of a turn are repeats of failures, of refusals by another process, or unknown.
    failed = sum(entry["done"] not in kept for entry in log)
    assert len(log) - len(turns) <= failed + len(unknown)

    # The book agrees with the log: what went out is there, and what was given up is counted as if it was answered.
    ends = Counter(event["outcome"] for event in events if event["kind"] == "request_ended")
    started = [event["request"] for event in events if event["kind"] == "request_started"]
    assert len(started) == len(set(started)) == sum(ends.values()) + len(unknown)
    assert len(log) <= len(started) <= len(log) + len(unknown)
    assert ends["unknown"] >= sum(entry["done"] in TIMED_OUT for entry in log) - len(unknown)
    assert min(result["limits"]) < max(result["limits"])  # it was cut, and grew

    assert KEY not in out + err + (tmp_path / "run" / "events.jsonl").read_text()
    assert KEY.encode() not in (tmp_path / "answers.sqlite").read_bytes()
