"""Courses of several sessions: what is known when one begins, summaries between them, and kills anywhere."""

import asyncio
import hashlib
import io
import json
import os
import random
import signal
import time

import pytest
import yaml
from command import cbtrain, start_cbtrain
from loopback import background, completion
from rich.console import Console
from study_files import ScriptedPatient, request_of

from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.eval.report.schema.report import Report
from cbtrain.journal import read
from cbtrain.study.evaluation.estimate import estimate, lengths_of
from cbtrain.study.evaluation.evaluate import evaluate_study
from cbtrain.study.evaluation.scores import load_scores
from cbtrain.study.evaluation.simulate import sessions_of
from cbtrain.study.evaluation.study import open_study
from cbtrain.study.session_log.sessions import read_sessions
from cbtrain.study.session_log.text import session_text


class Speakers(ScriptedPatient):
    """Plays patients, therapists and the writers of summaries, each answer by the request alone. ``short``: how many
    summaries are too short."""

    def __init__(self, short=0):
        super().__init__()
        self.short = short

    def __call__(self, number, body):
        with self.alone:
            self.asked.append(request_of(body))
        if body["messages"][-1]["content"].endswith(SUMMARY_END):
            time.sleep(0.03)  # long enough to be killed in
            if self.short > 0:
                self.short -= 1
                return completion("Too short.")
        return completion(reply_to(request_of(body)))


SUMMARY_END = "nothing that was not said."
WORDS = (
    "bread rain bus letter sister dog stairs window tea coat road music lamp boots clock garden kettle paper".split()
)


def reply_to(request):
    draw = random.Random(hashlib.sha256(request.encode()).hexdigest())
    return f"{' '.join(draw.choices(WORDS, k=24))} {draw.getrandbits(64):016x}"


def study_of(folder, url, **evaluation):
    provider = {"base_url": url, "model": "x", "backoff_s": 0.01, "max_retries": 20}
    settings = {
        "therapists": {"one": {"provider": provider}, "two": {"provider": provider | {"model": "y"}, "prompt": "none"}},
        "patient_provider": provider,
        "judging": {"rater": "cue"},
        "seeds": 1,
        "max_patients": 1,
        "max_turns": 4,
        "course": {"sessions": "whole", "length": 3},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"evaluation": settings | evaluation}))
    return path


def evaluate(study, out, *settings, **options):
    shown = io.StringIO()
    asyncio.run(evaluate_study(load_config(str(study), settings), out, Console(file=shown, width=300), **options))
    return shown.getvalue()


def events_of(out, *kinds):
    return [event for event in read(out / "events.jsonl") if event["kind"] in kinds]


def prompts(asked):
    return [json.loads(request)[0] for request in asked]


def test_each_session_begins_with_the_summary_of_the_last_in_both_prompts(tmp_path):
    api = Speakers(short=1)
    with background(api) as server:
        study = study_of(tmp_path, server.url)
        evaluate(study, tmp_path / "out")
        assert len(api.asked) == 2 * (3 * 4 + 2) + 1  # turns, summaries, and one that was too short
        summaries = {event["session"]: event["text"] for event in events_of(tmp_path / "out", "summary")}
        assert len(summaries) == 4  # none after the last session
        asked = prompts(api.asked)
        for arm in ("one", "two"):
            for number in (1, 2):
                text = summaries[f"amara.{arm}.0.s{number}"]
                told = [messages for messages in asked if text in messages[0]["content"]]
                patient = [messages for messages in told if messages[0]["content"].startswith("You are Amara")]
                assert len(patient) == 2
                assert len(told) - len(patient) in (2, 3)  # and the summary that is written next
        logged = read_sessions(tmp_path / "out")["amara.one.0.s1"]
        assert any(line == summaries[logged.id] for line, _ in session_text(logged, None))
        told = {session.id: session for session in Report.read(tmp_path / "out" / "report.json").sessions}
        assert told["amara.one.0.s2"].begins_with == told["amara.one.0.s1"].summary == summaries["amara.one.0.s1"]
        (again,) = [one for one in load_scores([tmp_path / "out"]).transcripts if one.facts["id"] == "amara.two.0.s2"]
        assert again.facts["begins_with"] == summaries["amara.two.0.s1"]
        # Nothing is asked again.
        before = len(api.asked)
        assert "6 of 6 sessions are finished" in evaluate(study, tmp_path / "out")
        assert len(api.asked) == before
    first = next(messages for messages in asked if messages[0]["content"].startswith("You are Amara"))
    assert "session 1 of your therapy" in first[0]["content"]


def test_a_course_ends_where_no_summary_can_be_had_and_goes_on_later(tmp_path):
    api = Speakers(short=3)
    with background(api) as server:
        study = study_of(
            tmp_path,
            server.url,
            max_failures=1.0,
            therapists={"one": {"provider": {"base_url": server.url, "model": "x"}}},
        )
        told = evaluate(study, tmp_path / "out")
        assert "1 course ended early, the first after amara.one.0.s1: no summary of it: the summary has 2 words" in told
        assert len(events_of(tmp_path / "out", "session_finished")) == 1
        assert [event["error"][:11] for event in events_of(tmp_path / "out", "no_summary")] == ["the summary"]
        evaluate(study, tmp_path / "out")
        assert len(events_of(tmp_path / "out", "session_finished")) == 3


def test_simulators_seeds_and_sessions_are_added_to_what_is_held(tmp_path):
    api = Speakers()
    with background(api) as server:
        provider = {"base_url": server.url, "model": "x"}
        first = {"therapists": {"one": {"provider": provider}}, "patients": {"library": "depression", "count": 1}}
        study = study_of(tmp_path, server.url, **first, course={"phases": ["assessment"]})
        evaluate(study, tmp_path / "out")
        assert len(api.asked) == 4
        more = {"simulators": {"default": {}, "beliefs": {"method": "cognitive-model"}}, "seeds": 2}
        study = study_of(tmp_path, server.url, **first | more, course={"phases": ["assessment", "middle"]})
        evaluate(study, tmp_path / "out")
        assert len(api.asked) == 2 * 2 * 2 * 4  # none of the first ones again
        all_new = study_of(tmp_path, server.url, **first, simulators={"story": {}})
        with pytest.raises(UserError, match=r"none of the 8 sessions in events\.jsonl is in this plan"):
            evaluate(all_new, tmp_path / "out")
        wrong = study_of(tmp_path, server.url, **first, simulators={"default": {"method": "cognitive-model"}})
        with pytest.raises(UserError, match=r"evaluation\.simulators\.default: default is the way"):
            evaluate(wrong, tmp_path / "out")


def test_courses_that_end_early_count_as_failures(tmp_path):
    api = Speakers(short=99)
    with background(api) as server:
        study = study_of(tmp_path, server.url)
        with pytest.raises(UserError, match=r"no summary of it: .* \(0 of 6 sessions failed, 4 more did not begin\)"):
            evaluate(study, tmp_path / "out")
    assert (tmp_path / "out" / "report.html").exists()


def test_the_summary_can_be_told_in_first_words_that_are_written(tmp_path):
    api = Speakers()
    with background(api) as server:
        study = study_of(tmp_path, server.url, course={"sessions": "whole", "length": 2, "told": "opening"})
        evaluate(study, tmp_path / "out")
    turns = events_of(tmp_path / "out", "turn")
    openings = {turn["session"]: turn["text"] for turn in turns if turn["index"] == 0}
    summaries = {event["session"]: event["text"] for event in events_of(tmp_path / "out", "summary")}
    assert openings["amara.one.0.s1"].startswith("Hello, I am Amara Okafor. This is session 1")
    assert openings["amara.one.0.s2"].endswith(summaries["amara.one.0.s1"])
    logged = read_sessions(tmp_path / "out")["amara.one.0.s2"]
    assert "[1] patient · written beforehand, asked of no model" in [line for line, _ in session_text(logged, None)]
    assert not any(summaries["amara.one.0.s1"] in messages[0]["content"] for messages in prompts(api.asked))


def test_a_course_that_was_held_again_counts_again_when_the_settings_are_set_back(tmp_path):
    api = Speakers()
    with background(api) as server:
        arms = {"one": {"provider": {"base_url": server.url, "model": "x"}}}
        study = study_of(tmp_path, server.url, therapists=arms, course={"sessions": "whole", "length": 2})
        evaluate(study, tmp_path / "out")
        held = (tmp_path / "out" / "sessions.jsonl").read_text()
        evaluate(study, tmp_path / "out", "evaluation.max_turns=6", hold_again=True)
        before = len(api.asked)
        evaluate(study, tmp_path / "out")
        assert len(api.asked) == before
        assert (tmp_path / "out" / "sessions.jsonl").read_text() == held


def test_a_course_goes_on_when_the_server_that_writes_summaries_has_moved(tmp_path):
    api = Speakers()
    settings = {"sessions": "whole", "length": 2}
    for length in (2, 3):
        with background(api) as server:
            provider = {"base_url": server.url, "model": "x"}
            course = settings | {"length": length, "summary": {"provider": provider | {"model": "writer"}}}
            arms = {"one": {"provider": provider}}
            evaluate(study_of(tmp_path, server.url, therapists=arms, course=course), tmp_path / "out")
    assert len(events_of(tmp_path / "out", "session_finished")) == 3


def test_summaries_that_a_therapist_behind_an_api_writes_have_its_price(tmp_path):
    paid = {"base_url": "http://127.0.0.1:9/v1", "model": "x", "price": {"input": 1.0, "output": 2.0}}
    arms = {"one": {"provider": paid}, "two": {"provider": paid | {"price": None}, "prompt": "none"}}
    study = study_of(tmp_path, paid["base_url"], therapists=arms)
    protocol = open_study(load_config(str(study)), tmp_path / "out", Console(quiet=True)).protocol
    sessions = sessions_of(protocol)
    rows = [row for row in estimate(protocol, sessions, lengths_of([], None, protocol), []) if row.role == "summaries"]
    assert [(row.model, row.calls, bool(row.dollars)) for row in rows] == [("one", 2, True), ("two", 2, False)]


def kill_and_continue(study, out, api, kills, cwd):
    """Run the study, killed so many times at random records, then to its end. What the journal held at a kill is never
    asked for again."""
    draw, seen = random.Random(5), []
    for _ in range(kills):
        with start_cbtrain("evaluate", str(study), "--out", str(out), cwd=cwd) as process:
            held = len(events_of(out, "turn", "summary")) if (out / "events.jsonl").exists() else 0
            wait_for_records(process, out, held + draw.randint(2, 9))
            time.sleep(draw.random() * 0.03)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        seen.append((len(api.asked), {event["text"] for event in events_of(out, "turn", "summary")}))
    done = cbtrain("evaluate", str(study), "--out", str(out), cwd=cwd)
    assert done.returncode == 0, done.stderr
    for number, held in seen:
        assert not held & {reply_to(request) for request in api.asked[number:]}
    return seen


def wait_for_records(process, out, count):
    deadline = time.monotonic() + 120
    while not ((out / "events.jsonl").exists() and len(events_of(out, "turn", "summary")) >= count):
        if process.poll() is not None:
            return
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_whole_courses_survive_kills_between_and_inside_sessions_and_summaries(tmp_path):
    check_kills(tmp_path, length=6, kills=6)


@pytest.mark.deep
def test_courses_of_twenty_sessions_survive_many_kills(tmp_path):
    check_kills(tmp_path, length=20, kills=25, max_patients=3)


def check_kills(folder, length, kills, **settings):
    api = Speakers()
    with background(api) as server:
        study = study_of(folder, server.url, course={"sessions": "whole", "length": length}, **settings)
        seen = kill_and_continue(study, folder / "out", api, kills, folder)
        assert len({number for number, _ in seen}) > kills // 2
        evaluate(study, folder / "calm")
    said = ["turn", "summary"]
    texts = [{event["text"] for event in events_of(folder / name, *said)} for name in ("out", "calm")]
    assert texts[0] == texts[1]
    assert len(events_of(folder / "out", *said)) == len(events_of(folder / "calm", *said))
    assert (folder / "out" / "sessions.jsonl").read_text() == (folder / "calm" / "sessions.jsonl").read_text()
