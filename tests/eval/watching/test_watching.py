"""The live display of an evaluation, and how another process follows it."""

import asyncio
import fcntl
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
from at_terminal import AtTerminal
from judges import RUBRIC, rated
from lanes import lanes
from loopback import completion, serve, status
from rich.cells import cell_len
from rich.console import Console, Group

from cbtrain.cli.main import main
from cbtrain.config.loading import load_config
from cbtrain.errors import Stopped
from cbtrain.eval.simulation.api_speakers import ApiPatient
from cbtrain.eval.simulation.dialogue import Limits, SpeakerStopped, Spoken
from cbtrain.eval.simulation.parts import PatientRole
from cbtrain.eval.simulation.runner import SimulationSettings, plan_sessions, run_sessions
from cbtrain.eval.watching import display as displays
from cbtrain.eval.watching.display import Display
from cbtrain.eval.watching.follow import Follower
from cbtrain.eval.watching.table import MOST_ROWS, Process, Requests, View, line, table
from cbtrain.eval.watching.tally import Tally
from cbtrain.generation.config import SamplingConfig
from cbtrain.journal import Journal, being_written, read
from cbtrain.study.evaluation.run_context import BEGUN, open_run


def told(records):
    tally = Tally()
    for record in records:
        tally.add(record)
    return tally


def text(view, width=80, rows=MOST_ROWS):
    return [str(row) for row in table(view, width, rows)]


def events_of(journal, arms=("base", "tuned"), sessions=4, turns=3, finished=2, max_turns=6):
    """Write an evaluation in which ``finished`` sessions of every arm have ended and one more is held."""
    journal.append("run_started", settings={})
    journal.append("sessions_planned", arms=dict.fromkeys(arms, sessions), max_turns=max_turns)
    for arm in arms:
        for patient in range(finished + 1):
            session = f"p{patient}.{arm}.0"
            journal.append("session_started", session=session, arm=arm, patient=f"p{patient}", seed=0)
            for index in range(turns):
                role, facts = ("patient", "therapist")[index % 2], {"completion_tokens": 10}
                journal.append("turn", sync=False, session=session, index=index, role=role, text="x", facts=facts)
            if patient < finished:
                journal.append("session_finished", session=session, ending="max_turns", error=None)


WRITER = """
import sys
from cbtrain.journal import Journal
print("begun", flush=True)
with Journal(sys.argv[1]) as journal:
    journal.append("sessions_planned", arms={"base": 40}, max_turns=50)
    sys.stdin.readline()
    for number in range(40):
        session = f"p{number}.base.0"
        journal.append("session_started", sync=False, session=session, arm="base", patient="p", seed=0)
        for index in range(50):
            text = "x" * (index * 37 % 3000)
            journal.append("turn", sync=False, session=session, index=index, role="patient", text=text, facts={})
        journal.append("session_finished", session=session, ending="max_turns", error=None)
    journal.append("run_ended", how="done", why="")
    sys.stdin.readline()
"""


@pytest.fixture
def writer(tmp_path):
    """A process that writes a journal: at once its plan, the rest after a line of input, and ends after another."""
    path = tmp_path / "events.jsonl"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdin=-1, stdout=-1, text=True) as process:
        process.path = path
        assert process.stdout.readline() == "begun\n"
        while not (path.exists() and path.read_bytes().endswith(b"\n")):
            time.sleep(0.01)
        yield process
        with suppress(BrokenPipeError):
            process.kill()


def test_a_journal_is_followed_while_another_process_writes_it_and_nothing_is_read_twice(writer):
    follower, updates = Follower(writer.path), 0
    writer.stdin.write("\n\n")
    writer.stdin.flush()
    while being_written(writer.path):
        follower.update()
        updates += 1
    follower.update()
    size = writer.path.stat().st_size
    assert updates > 1
    assert follower.tally == told(read(writer.path))
    assert (follower.tally.records, follower.tally.turns, follower.tally.arms["base"].ended) == (2082, 2000, 40)
    # A line that is seen half written is read once more.
    assert size <= follower.bytes_read < size + updates * 4000
    assert follower.bytes_read < 1.2 * size
    assert (follower.tally.complete, follower.tally.standing(written=False)) == (True, "finished")
    before = follower.bytes_read
    follower.update()
    assert follower.bytes_read == before


def test_a_torn_line_a_damaged_one_and_another_file_are_survived(tmp_path):
    path = tmp_path / "events.jsonl"
    follower = Follower(path)
    follower.update()  # there is none yet
    with Journal(path) as journal:
        events_of(journal)
    follower.update()
    whole = path.read_bytes()
    records = follower.tally.records
    for torn in (b'{"kind": "turn", "ti', b'{"kind": "turn"\n', b'{"kind": "turn"\n{"ki'):
        path.write_bytes(whole + torn)
        follower.update()
        follower.update()
        assert (follower.tally.records, follower.tally.unread) == (records, 0), torn
    with Journal(path) as journal:  # cuts it off
        journal.append("session_finished", session="p2.base.0", ending="budget", error="spent")
    follower.update()
    assert follower.tally == told(read(path))
    assert follower.tally.arms["base"].sessions["failed"] == 1
    lines = whole.splitlines(keepends=True)
    lines.insert(3, b"\xff\x00 oops\n")
    path.write_bytes(b"".join(lines))
    again = Follower(path)
    again.update()
    assert (again.tally.records, again.tally.unread) == (records, 1)
    assert "note      unreadable records in this journal: 1" in text(View(again.tally, again.tally.time, False))
    with Journal(tmp_path / "other") as journal:
        journal.append("sessions_planned", arms={"gpt": 9}, max_turns=4)
    os.replace(tmp_path / "other", path)
    follower.update()
    assert list(follower.tally.arms) == ["gpt"]
    path.write_bytes(b"")
    follower.update()
    assert follower.tally == Tally()


def test_records_of_another_program_are_counted_and_change_nothing():
    moment = "2026-11-30T03:00:00.000+00:00"
    records = [
        {"kind": "turn", "time": moment},
        {"kind": "turn", "time": moment, "session": [], "index": 0},
        {"kind": "sessions_planned", "time": moment, "arms": 3},
        {"kind": "request_ended", "time": moment, "request": {}, "role": "judge", "dollars": 1},
        {"kind": "rating", "time": moment, "key": "k", "score": None},
        {"kind": "run_ended", "time": "soon", "how": "done"},
        {"time": moment},
        {"kind": "of_tomorrow", "time": moment},
    ]
    tally = told(records)
    assert (tally.records, tally.unread, tally.arms, tally.ratings.done, tally.spent) == (8, 7, {}, 0, {})


async def test_the_tally_of_the_running_process_is_that_of_its_file(tmp_path, monkeypatch):
    """Patients and a judge behind a real API, one 429, a failed session; at the end and after every phase."""
    monkeypatch.setenv("TEST_API_KEY", "k")

    def plan(number, body):
        if number == 2:
            return status(429, "slow down", {"Retry-After": "0.05"})
        if "You play a patient." not in str(body["messages"][0]):
            rating = {"evidence": [1], "reason": "asks", "score": 3}
            return completion(json.dumps({domain.id: rating for domain in RUBRIC.domains}))
        return completion(f"I feel low, {number}.")

    class Therapist:
        def __init__(self, session):
            self.session = session

        async def speak(self, turns, seed):
            if self.session.id == "q.tuned.0" and len(turns) > 1:
                raise SpeakerStopped("provider_error", "HTTP 500")
            return Spoken(f"And then? {len(turns)}", {"completion_tokens": 5})

    config = load_config("quick", ["providers.budget=50", f"providers.answers={tmp_path / 'answers'}"])
    out, sessions = io.StringIO(), plan_sessions(["p", "q"], ["base", "tuned"], 1)
    async with serve(plan) as script:
        paid = script.config(api_key_env="TEST_API_KEY", price={"input": 1000.0, "output": 1000.0})
        async with open_run(config, tmp_path, Console(file=out, width=300)) as run:
            run.record(BEGUN, settings={})
            patient, part = await run.providers.open(paid, "patient"), PatientRole(None, "You play a patient.")
            await run_sessions(
                sessions,
                lanes(sessions, lambda session: (ApiPatient(patient, part, SamplingConfig()), Therapist(session))),
                run.journal,
                SimulationSettings(3, Limits(6, 999), seed=0),
                run.display,
            )
            run.providers.ledger._thread.submit(int).result()  # all that it has to write has been written
            tally = run.display.tally
            assert tally == told(read(tmp_path / "events.jsonl"))
            assert (tally.turns, tally.phase, tally.waiting, tally.requests) == (3 * 6 + 3, "simulating", {}, {})
            judge = await run.providers.open(paid, "judge")
            ended = [session for session in sessions if not session.failed]
            await rated(judge, paid, ended, run.journal, run.display)
            budget = run.providers.budget
            assert {role: spent.dollars for role, spent in tally.spent.items()} == {
                role: pytest.approx(cost.dollars) for role, cost in budget.roles.items()
            }
    follower = Follower(tmp_path / "events.jsonl")
    follower.update()
    assert follower.tally == tally
    assert {name: dict(arm.sessions) for name, arm in tally.arms.items()} == {
        "base": {"begun": 0, "active": 0, "done": 2},
        "tuned": {"begun": 0, "active": 0, "done": 1, "failed": 1},
    }
    assert (tally.ratings.done, tally.ratings.planned, tally.budget, tally.rate_limited) == (3, 3, 50.0, 1)
    simulated, judged = out.getvalue().splitlines()
    assert simulated.strip().startswith("running: 4 of 4 sessions, ")
    assert "of the budget of $50.00, patient $" in simulated
    assert "1 answered with 429" in simulated
    assert "4 of 4 sessions, 3 of 3 ratings, " in judged
    shown = text(View(tally, tally.time, False), width=120)
    assert shown[0] == "finished: 4 of 4 sessions, 3 of 3 ratings, judge m"
    assert [row.split() for row in shown[2:4]] == [["base", *"200", "2", "12"], ["tuned", *"101", "2", "9"]]


def many_arms(path, arms=40):
    names = [f"llama-3.1-8b-instruct-therapist-{number:02}-of-a-long-name" for number in range(arms)]
    with Journal(path) as journal:
        events_of(journal, names, finished=0, turns=5)
        for name in names[:33]:  # the last seven remain active
            journal.append("session_finished", session=f"p0.{name}.0", ending="max_turns", error=None)
        journal.append("budget", dollars=25.0)
        for number in range(30):
            journal.append("request_started", request=number, role="patient", dollars=0.1, key="k", sync=False)
        end = {"role": "patient", "dollars": 0.0, "outcome": "failed"}
        journal.append("request_ended", request=0, **end, problem="HTTP 429, rate limit: slow down")
        journal.append("request_ended", request=1, **end, problem="HTTP 503, transient: overloaded")
        answered = {"outcome": "answered", "dollars": 1.5, "priced": True, "model": "m", "usage": {}}
        journal.append("request_ended", request=2, role="patient", **answered)
        journal.append("limit_change", api="a", limit=16, why="rate_limit")
        journal.append("ratings_planned", ratings=160, earlier=3, judge="gpt-4.1")
        journal.append("rating", key="k", score={"status": "error"})
    return names, told(read(path))


@pytest.mark.parametrize("width", [50, 80, 120])
def test_twelve_rows_hold_forty_therapists_those_with_active_sessions_first(width, tmp_path):
    names, tally = many_arms(tmp_path / "events.jsonl")
    view = View(tally, tally.time + 45, True, Process(0.004))
    rows = text(view, width)
    assert len(rows) == MOST_ROWS
    assert max(map(cell_len, rows)) <= width
    assert rows[0].startswith("running: 33 of 160 sessions, 4 of 160 ratings")
    active = [row.split()[-5:] for row in rows[2:7]]
    assert active == [["0", "1", "0", "4", "5"]] * 5
    assert rows[7].startswith("35 others ")
    assert rows[7].split()[-5:] == ["33", "2", "0", "140", "175"]
    assert rows[8].startswith("speed     ")
    assert rows[9].startswith("spent     $1.50 of the budget of $25.00")
    assert re.match(r"requests  27 under way, the oldest for 4[567] s", rows[10])
    assert re.match(r"oldest    4[567] s for turn 6 of p0\.", rows[11])
    if width == 120:
        assert "1 answered with 429, limit 16, 1 failed, 1 paid" in rows[10]
        assert names[33] in rows[2]
    everything = text(View(tally, tally.time, False), width, None)
    assert len(everything) > 40
    assert everything[0].startswith("killed: ")
    assert " begun " in everything[1]  # nobody holds them
    assert len(text(view, width, 5)) == 5


def test_a_frame_costs_little(tmp_path):
    _, tally = many_arms(tmp_path / "events.jsonl")
    view = View(tally, tally.time + 45, True, Process(0.004, Requests(27, 45.0, 16, ("the API asks to wait 30 s",))))
    console, seconds = Console(file=io.StringIO(), force_terminal=True, width=120, height=40), []
    for _ in range(5):
        began = time.thread_time()
        console.print(Group(*table(view, 120)))
        seconds.append(time.thread_time() - began)
    assert min(seconds) < 0.015


def test_time_left_and_costs_are_projected_from_turns(tmp_path):
    """Sessions become as long as those that have ended; before one has, as long as they may."""
    with Journal(tmp_path / "events.jsonl") as journal:
        journal.append("run_started", settings={})
        journal.append("sessions_planned", arms={"base": 10}, max_turns=40)
        for number in range(2):
            session = f"p{number}.base.0"
            journal.append("session_started", session=session, arm="base", patient="p", seed=0)
            for index in range(10):
                journal.append("turn", sync=False, session=session, index=index, role="patient", text="", facts={})
    records = list(read(tmp_path / "events.jsonl"))
    tally = told(records)
    assert (tally.turns, tally.turns_left()) == (20, 380)
    end = {"kind": "session_finished", "time": records[-1]["time"], "ending": "patient_end", "error": None}
    tally.add(end | {"session": "p0.base.0"})
    assert tally.turns_left() == 9 * 10 - 10
    assert tally.share("patient") == 0.2
    assert tally.seconds_left(tally.time + 20) == pytest.approx(80, rel=0.1)  # a turn a second
    tally.add(end | {"session": "p1.base.0", "ending": "provider_error"})
    assert tally.turns_left() == 8 * 10
    tally.add(records[2] | {"session": "p1.base.0"})  # it is taken up again
    assert tally.turns_left() == 9 * 10 - 10


async def test_a_terminal_shows_the_last_state_and_a_blocked_loop(tmp_path, monkeypatch):
    out = io.StringIO()
    console, tally = Console(file=out, force_terminal=True, width=80, height=24), Tally()
    display = Display(console, tally)
    with Journal(tmp_path / "events.jsonl") as journal:
        journal.listener = tally.add
        async with display.shown():
            await asyncio.sleep(0)
            time.sleep(0.8)  # noqa: ASYNC251  # the thread draws meanwhile
            assert display.lag.worst > 0.4
            drawn = out.getvalue()
            await asyncio.sleep(0.01)
            events_of(journal)
    assert "loop lag" in drawn
    assert "4 of 8 sessions" not in drawn
    assert "4 of 8 sessions" in out.getvalue()
    assert out.getvalue().count("loop lag") <= 5  # two frames a second


async def test_a_log_gets_few_lines(monkeypatch):
    monkeypatch.setattr(displays, "LINE_EVERY_S", 0.3)
    monkeypatch.setattr(displays, "MEASURE_EVERY_S", 0.05)
    out, began = io.StringIO(), time.monotonic()
    async with Display(Console(file=out), Tally()).shown():
        await asyncio.sleep(0.7)
    lines = out.getvalue().splitlines()
    assert 2 <= len(lines) <= (time.monotonic() - began) / 0.3 + 1  # the last one included
    assert all(line.startswith("     running: no session is recorded, loop lag ") for line in lines)


async def test_how_a_run_has_ended_is_told(tmp_path, capsys, monkeypatch):
    """Running, finished, stopped, failed, killed; and of an older version. Nothing is written into the run."""
    config, journal = load_config("quick", []), tmp_path / "runs" / "one" / "events.jsonl"
    monkeypatch.chdir(tmp_path)

    def shown():
        before = journal.read_bytes(), journal.stat().st_mtime_ns
        assert main(["watch", "runs/one", "--once"]) == 0
        assert (journal.read_bytes(), journal.stat().st_mtime_ns) == before
        return capsys.readouterr().out.splitlines()

    async def run(error=None):
        with suppress(Stopped, RuntimeError):
            async with open_run(config, journal.parent, Console(quiet=True)) as run:
                events_of(run.journal)
                assert shown()[0].startswith("running: 4 of 8 sessions, ")
                if error:
                    raise error

    await run(Stopped("SIGTERM"))
    assert shown()[0] == "stopped by SIGTERM: 4 of 8 sessions"
    assert shown()[1].split() == ["therapist", "done", "begun", "failed", "of", "turns"]
    await run(RuntimeError("no luck"))
    assert (shown()[0], shown()[-1]) == ("failed: 4 of 8 sessions", "note      no luck")
    await run()
    assert shown()[0] == "finished: 4 of 8 sessions"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    assert shown()[0] == "killed: 4 of 8 sessions"
    async with open_run(config, journal.parent, Console(quiet=True)):  # nothing was left to do
        pass
    assert shown()[0].startswith("finished: ")
    old = [line for line in lines if b"sessions_planned" not in line and b"run_ended" not in line]
    journal.write_bytes(b"".join(old))
    shown_old = shown()
    assert shown_old[0] == "stopped or killed: 4 of 6 begun sessions"
    assert shown_old[-1] == "note      this journal does not say how many sessions are planned"
    assert line(View(told(read(journal)), 0.0, False)).startswith("stopped or killed: 4 of 6 begun sessions, ")


def test_the_newest_run_is_watched_until_it_ends_at_a_terminal(writer, tmp_path):
    folder = tmp_path / "runs" / "new"
    folder.mkdir(parents=True)
    os.link(writer.path, folder / "events.jsonl")
    Journal(tmp_path / "runs" / "old" / "events.jsonl").close()
    os.utime(tmp_path / "runs" / "old" / "events.jsonl", (1, 1))
    with AtTerminal("watch", cwd=tmp_path) as terminal:
        terminal.wait_for("runs/new, the newest run with a journal")
        terminal.wait_for("0 of 40 sessions")
        writer.stdin.write("\n\n")
        writer.stdin.flush()
        terminal.wait_for("finished: ")
        terminal.wait_for("40 of 40 sessions")
        terminal.wait_for("\x1b[?25h")  # the cursor is back
        assert terminal.process.wait() == 0
    assert sorted(path.name for path in folder.iterdir()) == ["events.jsonl"]


def test_ctrl_c_ends_watching_and_not_the_run(writer):
    with AtTerminal("watch", writer.path.parent) as terminal:
        terminal.wait_for("0 of 40 sessions")
        terminal.press_ctrl_c("interrupted")
        assert terminal.process.wait() == 130
    assert being_written(writer.path)


def test_whoever_asks_whether_a_journal_is_written_keeps_no_writer_out(tmp_path):
    """The lock is shared for a moment: a writer that comes then tries again."""
    path = tmp_path / "events.jsonl"
    Journal(path).close()
    with path.open() as asked:
        fcntl.flock(asked, fcntl.LOCK_SH)
        threading.Timer(0.01, fcntl.flock, (asked.fileno(), fcntl.LOCK_UN)).start()
        with Journal(path):
            assert being_written(path)
    assert not being_written(path)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "runs/: no run with a journal here. Name the folder of a run: cbtrain watch RUN."),
        (["none"], "none: no such folder."),
        (["."], ".: no journal (events.jsonl) here yet."),
        (["file"], "file: no such folder."),
        (["odd"], "odd: no journal (events.jsonl) here yet."),
        (["one", "two"], "watch: unrecognized arguments: two"),
        (["one", "seed=1"], "watch: unrecognized arguments: seed=1"),
        (["x" * 300], f"{'x' * 300}: no such folder."),
    ],
)
def test_a_folder_that_cannot_be_watched_is_one_line(words, problem, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "odd" / "events.jsonl").mkdir(parents=True)
    assert main(["watch", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"cbtrain: {problem}")
