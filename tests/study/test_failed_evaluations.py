"""Evaluations of a run that an older version trained, whose APIs fail, whose answers are damaged, or that are stopped."""

import json
import os
import shlex
import signal
import sqlite3
import tarfile
import time
from pathlib import Path

import pytest
from command import cbtrain, start_cbtrain
from loopback import background, completion, status

from cbtrain.journal import read
from cbtrain.transcripts.types import FAILURES

pytestmark = pytest.mark.slow
MADE = ("events.jsonl", "scores.csv", "report.json", "sessions.jsonl")


@pytest.fixture
def run(tmp_path):
    """A trained run, not yet evaluated."""
    with tarfile.open(Path(__file__).parent / "data" / "runs-eba986d.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    for name in MADE:
        (tmp_path / "run-0" / name).unlink()
    return tmp_path / "run-0"


def evaluation(run, script, *more):
    """The arguments of an evaluation with a paid patient at ``script``."""
    provider = f"base_url: '{script.url}', model: m, api_key_env: A_KEY, price: {{input: 0, output: 1}}, max_retries: 0"
    return ["evaluate", "--run", run.name, f"evaluation.patient_provider={{{provider}}}", *more]


def options(tmp_path):
    return {"cwd": tmp_path, "env": {"A_KEY": "k", "CBTRAIN_CACHE": str(tmp_path / "cache")}}


@pytest.mark.fault("F6")
def test_a_run_of_which_too_many_sessions_fail_is_no_success(run, tmp_path):
    """One of two sessions of each patient: the cause comes first, and what there is is written."""
    asked = []

    def plan(number, body):
        asked.append(body["messages"][-1])
        return status(400, "this model is retired") if number == 2 else completion(f"I slept badly, {number}.")

    with background(plan) as script:
        command = evaluation(run, script, "evaluation.sessions_in_flight=1", "evaluation.max_patients=2")
        done = cbtrain(*command, **options(tmp_path))
        assert done.returncode == 2
        assert done.stderr.startswith(
            f"cbtrain: {script.url}: provider_error: HTTP 400, permanent: this model is retired"
        )
        assert "of 4 sessions failed, " in done.stderr
        assert " more did not begin). The results are written, without them" in done.stderr
        assert done.stderr.count("\n") == 1
        for name in MADE:
            assert (run / name).stat().st_size
        report = json.loads((run / "report.json").read_text())
        failed = [session for session in report["sessions"] if session["ending"] == "provider_error"]
        assert 1 <= len(failed) < 4
        again = cbtrain(*command, **options(tmp_path))
        assert again.returncode == 0, again.stderr
    assert not [s for s in json.loads((run / "report.json").read_text())["sessions"] if s["ending"] in FAILURES]


@pytest.mark.fault("F6")
def test_a_damaged_file_of_answers_stops_the_run_with_the_cause(run, tmp_path):
    with background(lambda number, body: completion("I slept badly.")) as script:
        answers = tmp_path / "answers.sqlite"
        database = sqlite3.connect(answers)
        database.execute(
            "CREATE TABLE answers (key TEXT PRIMARY KEY, request TEXT, answer TEXT, at REAL) WITHOUT ROWID"
        )
        database.executemany("INSERT INTO answers VALUES (?, '', '', 0)", [(f"{n:064}",) for n in range(400)])
        database.commit()
        database.close()
        content = answers.read_bytes()
        answers.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
        done = cbtrain(*evaluation(run, script, f"providers.answers={answers}"), **options(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"cbtrain: {answers}: answers cannot be saved here (database disk image is malformed)"
    )
    assert done.stderr.count("\n") == 1
    assert not (run / "report.json").exists()
    assert script.bodies == []


@pytest.mark.fault("F9")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_stopped_with_its_patients_server_nothing_is_lost(name, run, tmp_path):
    """The signal goes to both processes, as a terminal's Ctrl-C and SLURM's signals do."""
    with start_cbtrain("evaluate", "--run", run.name, "evaluation.max_turns=60", cwd=tmp_path) as child:
        events = run / "events.jsonl"
        deadline = time.monotonic() + 300
        while not (events.exists() and events.read_text().count('"kind": "turn"') >= 6):
            assert time.monotonic() < deadline
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.005)
        os.killpg(child.pid, getattr(signal, name))
        _, err = child.communicate()
    assert child.returncode == 75, err
    assert f"cbtrain: stopped by {name}, 0 of 4 sessions finished, everything is saved. Continue with: " in err
    kinds = [event["kind"] for event in read(events)]
    assert "session_finished" not in kinds
    before = [event for event in read(events) if event["kind"] == "turn"]
    words = shlex.split(err.partition("Continue with: cbtrain ")[2])
    again = cbtrain(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [event for event in read(events) if event["kind"] == "turn"][: len(before)] == before
    assert not [s for s in json.loads((run / "report.json").read_text())["sessions"] if s["ending"] in FAILURES]
