"""A signal in the midst of asynchronous work: nothing new begins, what is under way ends, and nothing is lost."""

import asyncio
import contextlib
import gc
import os
import random
import signal
import subprocess
import sys

import pytest
from aiohttp import web
from lanes import lanes
from loopback import completion, serve

from cbtrain.errors import Stopped
from cbtrain.eval.simulation.dialogue import Limits, Spoken
from cbtrain.eval.simulation.restoring import restore
from cbtrain.eval.simulation.runner import SimulationSettings, plan_sessions, run_sessions
from cbtrain.journal import Journal, read
from cbtrain.providers.config import ProvidersConfig
from cbtrain.providers.providers import Providers
from cbtrain.providers.types import ChatRequest, Message
from cbtrain.stopping import StopRequest, protect, stop_at_once

pytestmark = pytest.mark.fault("F9")


def send(name):
    os.kill(os.getpid(), getattr(signal, name))


@pytest.fixture
def heard(name):
    """The signal ``name`` is not ignored, as SIGHUP is under nohup."""
    before = signal.signal(getattr(signal, name), signal.default_int_handler)
    yield
    signal.signal(getattr(signal, name), before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
async def test_waiting_ends_and_what_is_under_way_does_not(name):
    said, ended = [], []

    async def wait():
        with stop.interruptible():
            await asyncio.sleep(60)

    async def work():
        await asyncio.sleep(0.2)
        ended.append("work")

    before = signal.getsignal(getattr(signal, name))
    with StopRequest(30, said.append) as stop:
        asyncio.get_running_loop().call_later(0.05, send, name)
        with pytest.raises(Stopped, match=rf"stopped by {name}, 1 of 2 done, everything is saved"):
            await stop.together([wait(), work()], lambda: "1 of 2 done")
        assert ended == ["work"]
        with pytest.raises(Stopped):
            stop.refuse_new()
        assert len(said) == 1
        assert said[0].startswith(f"{name}: nothing new is started, what is under way has 30 s to end")
    assert signal.getsignal(getattr(signal, name)) == before


async def test_what_does_not_end_within_the_limit_is_cancelled():
    with StopRequest(0.1) as stop:
        asyncio.get_running_loop().call_later(0.02, send, "SIGTERM")
        with pytest.raises(Stopped):
            await stop.together([asyncio.sleep(60), asyncio.sleep(60)])


async def test_all_done_in_time_is_no_stop_and_errors_stay_errors():
    async def fail():
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with StopRequest(1) as stop:
        assert await stop.together([asyncio.sleep(0, number) for number in range(3)]) == [0, 1, 2]
        with pytest.raises(ZeroDivisionError):
            await stop.together([asyncio.sleep(60), fail()])
        waiting = asyncio.create_task(_wait(stop))
        await asyncio.sleep(0)
        waiting.cancel()  # by somebody else
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def _wait(stop):
    with stop.interruptible():
        await asyncio.sleep(60)


@pytest.mark.parametrize("seed", range(4))
async def test_stopped_anywhere_every_turn_that_was_said_is_recorded(seed, tmp_path):
    """And none begins after the signal; the next process continues, and asks for no turn again."""
    draw, said = random.Random(seed), []

    class Speaker:
        def __init__(self, session):
            self.session = session

        async def speak(self, turns, seed):
            begun = stop.name
            await asyncio.sleep(draw.random() * 0.02)
            assert begun is None
            said.append((self.session.id, len(turns)))
            if len(said) == stop_after:
                send("SIGTERM")
            return Spoken(f"turn {len(turns)} of {self.session.id}", {})

    path, sessions = tmp_path / "events.jsonl", []
    for last in (False, False, True):
        sessions = plan_sessions(["a", "b", "c"], ["base", "tuned"], 2)
        with Journal(path) as journal, StopRequest(5) as stop:
            restore(sessions, list(read(path)))
            # By turns, not by the clock: on a quick machine all would have been said before the signal.
            stop_after = 0 if last else len(said) + draw.randrange(1, 25)
            talk = run_sessions(
                sessions,
                lanes(sessions, lambda session: (Speaker(session), Speaker(session))),
                journal,
                SimulationSettings(5, Limits(6, 1000), seed=0),
                stop=stop,
            )
            if last:
                await talk
            else:
                with pytest.raises(Stopped, match=r"\d+ of 12 sessions finished"):
                    await talk
        recorded = [(e["session"], e["index"]) for e in read(path) if e["kind"] == "turn"]
        assert sorted(recorded) == sorted(said) == sorted(set(said))
    assert len(said) == 12 * 6
    assert {session.ending for session in sessions} == {"max_turns"}


async def test_requests_that_wait_for_their_turn_do_not_go_out(tmp_path):
    """Two of twelve are out; the others wait for a permit, a repeat, or the API's Retry-After."""

    async def slow(request):
        await asyncio.sleep(0.2)
        return web.json_response(completion("fine"))

    async with serve(lambda number, body: slow) as script:
        with StopRequest(5) as stop:
            async with Providers(ProvidersConfig(), stop=stop) as providers:
                made = await providers.open(script.config(first_in_flight=2, max_in_flight=2), "judge")
                asks = [made.chat(ChatRequest((Message("user", str(n)),), max_tokens=9)) for n in range(12)]
                asyncio.get_running_loop().call_later(0.1, send, "SIGUSR1")
                answered = []

                async def note(ask):
                    answered.append((await ask).text)

                with pytest.raises(Stopped):
                    await stop.together(map(note, asks))
                assert answered == ["fine"] * 2
                assert made.account.limit.in_use == made.account.limit.waiting == 0
    assert len(script.bodies) == 2


def test_a_second_ctrl_c_ends_at_once():
    code = """
import asyncio
import contextlib
from cbtrain.stopping import StopRequest
async def main():
    with StopRequest(600, print) as stop:
        print("begun", flush=True)
        await stop.together([asyncio.sleep(600)])
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-uc", code], stdout=-1, stderr=-1, text=True) as child:
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline().startswith("SIGINT: nothing new is started")
        while child.poll() is None:
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.2)
        assert child.returncode == 130
        assert "what was recorded is on disk" in child.stderr.read()


def test_at_once_where_nothing_is_under_way():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="stopped by SIGTERM"), stop_at_once(("SIGTERM",)):
        send("SIGTERM")
    assert signal.getsignal(signal.SIGTERM) == before


def test_nohup_is_obeyed():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_at_once():
            send("SIGHUP")
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_an_error_after_a_cancellation_is_not_printed_by_asyncio():
    loop, heard = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda loop, context: heard.append(context["message"]))
    work = loop.create_future()
    waiting = asyncio.ensure_future(protect(work))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not work.done()
    work.set_exception(OSError("disk"))
    await asyncio.sleep(0)
    del work, waiting
    gc.collect()
    assert heard == []
