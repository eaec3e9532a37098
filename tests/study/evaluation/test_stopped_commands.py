"""Commands that pay are told to stop: nothing new goes out, answers that are under way are kept, status 75."""

import asyncio
import json
import shlex
import signal
import time

import pytest
from aiohttp import web
from command import cbtrain, start_cbtrain
from loopback import background, completion

from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.journal import read

pytestmark = pytest.mark.fault("F9")
RATING = {"evidence": [1], "reason": "asks", "score": 3}
GOOD = json.dumps({domain.id: RATING for domain in load_rubric().domains})


class Judge:
    """Requests hang while it is ``slow``."""

    slow = True

    def __call__(self, number, body):
        async def answer(request):
            while self.slow:  # noqa: ASYNC110 - it is set from another thread
                await asyncio.sleep(0.01)
            return web.json_response(completion(GOOD))

        return answer


@pytest.fixture
def rating(tmp_path):
    """A ``cbtrain rate`` of 8 sessions, two at a time; the command, the judge's server and how it answers."""
    for number in range(8):
        turns = f"Patient: I feel low, {number}.\nTherapist: What went through your mind?\n"
        (tmp_path / f"s{number}.txt").write_text(turns)
    judge = Judge()
    with background(judge) as script:
        provider = f"base_url: '{script.url}', model: m, api_key_env: A_KEY, first_in_flight: 2, max_in_flight: 2"
        price = "price: {input: 0, output: 1000}"
        command = ["rate", "corpus.path=.", "--out", "rated", "evaluation.judging.rater=llm",
                   f"evaluation.judging.provider={{{provider}, {price}}}"]  # fmt: skip
        environment = {"A_KEY": "k", "CBTRAIN_CACHE": str(tmp_path / "cache")}
        yield command, {"cwd": tmp_path, "env": environment}, script, judge
        judge.slow = False  # nothing hangs when the server ends


def wait_for(condition, child):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.01)


def outcomes(folder):
    events = list(read(folder / "events.jsonl"))
    return [e["outcome"] for e in events if e["kind"] == "request_ended"], sum(e["kind"] == "rating" for e in events)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_rating_ends_with_the_command_that_continues_it(name, rating, tmp_path):
    command, options, script, judge = rating
    with start_cbtrain(*command, **options) as child:
        wait_for(lambda: script.in_flight == 2, child)
        child.send_signal(getattr(signal, name))
        time.sleep(0.3)
        assert child.poll() is None
        judge.slow = False
        _, err = child.communicate()
    assert child.returncode == 75, err
    done, _, rest = err.partition(". Continue with: ")
    assert done == f"cbtrain: stopped by {name}, 2 of 8 ratings done, everything is saved"
    assert outcomes(tmp_path / "rated") == (["answered"] * 2, 2)
    assert len(script.bodies) == 2
    program, *words = shlex.split(rest)
    assert (program, words) == ("cbtrain", command)
    again = cbtrain(*words, **options)
    assert again.returncode == 0, again.stderr
    assert len(script.bodies) == 8
    assert "APIs: judge 8 requests, $0.0240" in again.stdout


def test_what_does_not_end_in_time_is_booked_as_unknown(rating, tmp_path):
    command, options, script, _ = rating
    with start_cbtrain(*command, "providers.stop_wait_s=0.2", **options) as child:
        wait_for(lambda: script.in_flight == 2, child)
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate()
    assert child.returncode == 75, err
    assert outcomes(tmp_path / "rated") == (["unknown"] * 2, 0)


def test_the_second_ctrl_c_ends_a_rating_at_once(rating):
    command, options, script, _ = rating
    with start_cbtrain(*command, **options) as child:
        wait_for(lambda: script.in_flight == 2, child)
        child.send_signal(signal.SIGINT)
        while child.poll() is None:
            time.sleep(0.2)
            child.send_signal(signal.SIGINT)
        assert child.returncode == 130
        assert child.stderr.read().endswith("interrupted; what was recorded is on disk\n")


def test_a_synthesis_continues_where_it_was_stopped(tmp_path):
    judge = Judge()
    with background(judge) as script:
        provider = f"provider={{base_url: '{script.url}', model: m, first_in_flight: 3, max_in_flight: 3}}"
        command = ["synthesize", "--out", "new corpus", "sessions=1", provider]
        with start_cbtrain(*command, cwd=tmp_path) as child:
            wait_for(lambda: script.in_flight == 3, child)
            child.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            judge.slow = False
            _, err = child.communicate()
    assert child.returncode == 75, err
    assert "parts written, everything is saved. Continue with: cbtrain synthesize --out 'new corpus' sessions=1" in err
    parts = [event for event in read(tmp_path / "new corpus" / "events.jsonl") if event["kind"] == "part"]
    assert len(parts) == len(script.bodies) == 3


def test_a_command_that_has_nothing_to_continue_leaves_no_half_written_files(tmp_path):
    """SIGTERM in the midst of a conversion: status 143, and nothing of it is left."""
    source = tmp_path / "corpus.jsonl"
    turns = [{"role": role, "text": "word " * 200} for role in ("patient", "therapist")] * 20
    lines = [{"schema": "cbtrain.session/1", "course": f"c{n}", "session": 1, "turns": turns} for n in range(400)]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with start_cbtrain("corpus", "convert", "corpus.jsonl", "--to", "messages", "--out", "new", cwd=tmp_path) as child:
        wait_for(lambda: [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"], child)
        child.terminate()
        _, err = child.communicate()
    assert (child.returncode, err) == (143, "cbtrain: ended by SIGTERM\n")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["corpus.jsonl"]
