"""Simulated sessions beside inspect_ai: the same dialogue, many in flight, and a scripted patient behind an API.

``python launch/benchmark.py evaluate [--inspect PYTHON] [--sessions N] [--turns N] [--tokens N] … [--json FILE]``

- ``ours-engine``: ``cbtrain evaluate``'s simulation, the therapist in its process.
- ``inspect-hf``: inspect_ai with its ``hf`` provider, the same weights.
- ``ours-server``, ``inspect-server``: both ask the same ``cbtrain serve``, a process of its own.

Every session has so many turns of the therapist, each of so many tokens, drawn with temperature 0.8 and top-p 0.95;
the patient's turns are some 25 words. The time is that from the first to the last request at the patient's API, which
is the same server for all rows. CPU time and peak memory are those of the whole process that holds the sessions (not of
``cbtrain serve``), without scoring and report, which inspect_ai is not asked for either. Rows alternate; medians.

``--inspect`` names the Python of an environment with ``inspect_ai``, ``openai``, ``torch``, ``transformers`` and
``accelerate``; without it only our rows run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks import LAUNCHER, command
from benchmarks.random_llama import save_random_llama

ROWS = ("ours-engine", "inspect-hf", "ours-server", "inspect-server")
GEOMETRY: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
"""A tiny Llama with enough arithmetic that an engine has something to do."""

VOCABULARY, POSITIONS = 4096, 8192
SYSTEM = "You are a therapist. Hold a therapy session with the person who writes to you."
TASK = '''
"""The same dialogue for inspect_ai."""
import os

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
from inspect_ai.solver import solver


@solver
def dialogue():
    patient = get_model(
        "openai-api/patient/p", base_url=os.environ["PATIENT_URL"], api_key="none",
        config=GenerateConfig(max_connections=512, max_tokens=80),
    )
    turns = int(os.environ["TURNS"])

    async def speak(state):
        flipped = [ChatMessageSystem(content="You are a patient.")]
        for message in state.messages[1:]:
            kind = ChatMessageUser if message.role == "assistant" else ChatMessageAssistant
            flipped.append(kind(content=message.text))
        if flipped[-1].role != "user":
            flipped.append(ChatMessageUser(content=f"[The session begins.] {state.sample_id}"))
        state.messages.append(ChatMessageUser(content=(await patient.generate(flipped)).completion))

    async def solve(state, generate):
        state.messages = [ChatMessageSystem(content=os.environ["SYSTEM"])]
        for _ in range(turns):
            await speak(state)
            state = await generate(state)
        await speak(state)
        return state

    return solve


@task
def sessions():
    samples = [Sample(input="x", id=str(number)) for number in range(int(os.environ["SESSIONS"]))]
    config = GenerateConfig(temperature=0.8, top_p=0.95, max_tokens=int(os.environ["TOKENS"]))
    return Task(dataset=samples, solver=dialogue(), config=config)
'''


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="benchmark.py evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inspect", metavar="PYTHON", help="Python of an environment with inspect_ai")
    parser.add_argument("--sessions", type=int, default=64, help="all of them in flight at once")
    parser.add_argument("--turns", type=int, default=5, help="therapist's turns of a session")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of a therapist's turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--row", nargs=3, metavar=("NAME", "FOLDER", "URL"), help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.row:
        _hold(parsed.row[0], Path(parsed.row[1]), parsed.row[2], parsed)
        return
    names = [name for name in parsed.rows if parsed.inspect or not name.startswith("inspect")]
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        _make(Path(folder))
        for number in range(parsed.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                measured[name].append(_row(name, Path(folder), parsed))
    rows = _show(measured, parsed.sessions)
    if parsed.json:
        parsed.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


def _make(folder: Path) -> None:
    """Write a model of random weights, with a tokenizer of the sample corpus, and inspect_ai's task."""
    from cbtrain.tokens.tokenizer import train_tokenizer
    from cbtrain.transcripts.reading import read

    texts = [turn.text for session in read("sample").sessions() for turn in session.turns]
    tokenizer = train_tokenizer(texts, VOCABULARY, POSITIONS)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": POSITIONS, "tie_word_embeddings": True}
    model = folder / "model"
    save_random_llama(model, {**GEOMETRY, **sizes, **ids})
    tokenizer.save_pretrained(model)
    (folder / "task.py").write_text(TASK)


class _Patient:
    """A chat API on loopback, in a thread, that answers by what it is asked; ``times`` are those of its requests."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.url = ""
        self._loop, self._ready = asyncio.new_event_loop(), threading.Event()
        self._stop = asyncio.Event()

    async def _chat(self, request: web.Request) -> web.Response:
        self.times.append(time.perf_counter())
        body = await request.json()
        digest = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()
        text = (
            f"I woke at {int(digest[:4], 16) % 24} again and thought of it for {int(digest[4:6], 16)} minutes, "
            "and then I stayed in bed and did not call anyone, since nobody would want to hear from me."
        )
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
        return web.json_response(
            {
                "id": digest[:8],
                "object": "chat.completion",
                "created": 0,
                "model": "p",
                "choices": [choice],
                "usage": usage,
            }
        )

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def __enter__(self) -> _Patient:
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


def _row(name: str, folder: Path, parsed: argparse.Namespace) -> dict[str, float]:
    """Hold all sessions once; return seconds, CPU seconds and peak memory in bytes of the process that held them."""
    from cbtrain.environment import quiet_openmp

    environment = {**os.environ, **quiet_openmp(os.environ), "OMP_NUM_THREADS": str(parsed.threads)}
    with _Patient() as patient, contextlib.ExitStack() as stack:
        server = stack.enter_context(_server(folder, parsed)) if name.endswith("server") else ""
        if name.startswith("ours"):
            sizes = [f"--{key}={getattr(parsed, key)}" for key in ("sessions", "turns", "tokens", "threads")]
            words = command("evaluate", *sizes, "--row", name, str(folder), patient.url)
            environment["SERVER_URL"] = server
        else:
            words = [parsed.inspect, "-m", "inspect_ai", "eval", "task.py", *_inspect_model(name, folder, server)]
            words += ["--max-samples", str(parsed.sessions), "--max-connections", str(parsed.sessions)]
            words += ["--display", "none", "--log-dir", str(folder / "logs"), "--no-fail-on-error"]
            environment |= {key.upper(): str(getattr(parsed, key)) for key in ("sessions", "turns", "tokens")}
            environment |= {"PATIENT_URL": patient.url, "SYSTEM": SYSTEM, "CBTRAIN_BASE_URL": server}
            environment |= {"CBTRAIN_API_KEY": "none", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        peak = _Peak(process.pid)
        output = process.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(process.pid, 0)
        wanted = parsed.sessions * (parsed.turns + 1)
        if status or len(patient.times) < wanted:
            sys.exit(f"{name}: status {status}, {len(patient.times)} of {wanted} patient's turns\n{output[-3000:]}")
        return {
            "seconds": patient.times[-1] - patient.times[0],
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak": peak.bytes,
        }


class _Peak:
    """Looks every tenth of a second how much memory a process has had at most. (What ``wait4`` says of a child begins
    with the memory of its parent.)"""

    def __init__(self, pid: int) -> None:
        self.bytes, self._status = 0.0, Path(f"/proc/{pid}/status")
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        with contextlib.suppress(OSError):
            while found := re.search(r"VmHWM:\s+(\d+) kB", self._status.read_text()):
                self.bytes = max(self.bytes, int(found[1]) * 1024.0)
                time.sleep(0.1)


def _inspect_model(name: str, folder: Path, server: str) -> list[str]:
    if server:
        return ["--model", "openai-api/cbtrain/model"]
    return ["--model", "hf/local", "-M", f"model_path={folder / 'model'}", "-M", "device=cpu"]


@contextlib.contextmanager
def _server(folder: Path, parsed: argparse.Namespace) -> Iterator[str]:
    """Yield the address of a ``cbtrain serve`` of the model."""
    words = [
        sys.executable,
        str(LAUNCHER.parent / "serve.py"),
        "--model",
        str(folder / "model"),
        "--name",
        "model",
        "--port",
        "0",
    ]
    words += ["--threads", str(parsed.threads), f"evaluation.engine.slots={parsed.sessions}"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            sys.exit("cbtrain serve has ended before it listened")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield f"{found[0]}/v1"
    finally:
        process.terminate()
        process.wait()


def _hold(name: str, folder: Path, patient_url: str, parsed: argparse.Namespace) -> None:
    """Hold the sessions of a study of one therapist as ``cbtrain evaluate`` does, without scores and report."""
    from rich.console import Console

    from cbtrain.config.schema import StudyConfig
    from cbtrain.study.evaluation.plan import write_plan
    from cbtrain.study.evaluation.resume import match, resume
    from cbtrain.study.evaluation.run_context import open_run
    from cbtrain.study.evaluation.simulate import Simulation, sessions_of
    from cbtrain.study.evaluation.study import open_study

    patients = 2
    therapist: dict[str, Any] = {"model": str(folder / "model"), "variant": "untuned"}
    if server := os.environ["SERVER_URL"]:
        therapist = {"provider": {"base_url": server, "model": "model", "max_in_flight": 512, "first_in_flight": 512}}
    settings = {
        "therapists": {"therapist": therapist},
        "patient_provider": {"base_url": patient_url, "model": "p", "max_in_flight": 512, "first_in_flight": 512},
        "prompt": "one-line",
        "max_patients": patients,
        "seeds": parsed.sessions // patients,
        "sessions_in_flight": parsed.sessions,
        "max_turns": 2 * parsed.turns + 1,
        "max_words": 1_000_000,
        "therapist": {"temperature": 0.8, "top_p": 0.95, "max_tokens": parsed.tokens, "min_tokens": parsed.tokens},
        "engine": {"slots": parsed.sessions},
        "judging": {"rater": "cue"},
    }
    if server:
        settings["therapist"] = {"temperature": 0.8, "top_p": 0.95, "max_tokens": parsed.tokens}
    config = StudyConfig.model_validate({"threads": parsed.threads, "evaluation": settings})
    console = Console(quiet=True)

    async def simulate() -> None:
        with tempfile.TemporaryDirectory() as out:
            study = open_study(config, Path(out), console)
            async with open_run(config, Path(out), console) as run:
                sessions = sessions_of(study.protocol)
                write_plan(study.protocol, run)
                resume(match(sessions, study.protocol, run.events, run.folder), sessions, run)
                await Simulation(study.protocol, sessions, run).hold()
            ends = {session.ending for session in sessions}
            assert ends <= {"max_turns"}, [session.error for session in sessions if session.error][:1]

    asyncio.run(simulate())


def _show(measured: dict[str, list[dict[str, float]]], sessions: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    print(f"{'':15} {'sessions/min':>13} {'CPU s':>8} {'peak':>9}")
    for name, results in measured.items():
        medians = {key: statistics.median(result[key] for result in results) for key in results[0]}
        rate = 60 * sessions / medians["seconds"]
        print(f"{name:15} {rate:13.1f} {medians['cpu_seconds']:8.1f} {medians['peak'] / 1e6:6,.0f} MB")
        rows.append(
            {
                "name": name,
                "sessions": sessions,
                "sessions_per_minute": rate,
                "cpu_seconds": medians["cpu_seconds"],
                "peak_memory_bytes": int(medians["peak"]),
                "seconds": [result["seconds"] for result in results],
            }
        )
    by_name = {row["name"]: row for row in rows}
    for ours, theirs in (("ours-engine", "inspect-hf"), ("ours-server", "inspect-server")):
        if ours in by_name and theirs in by_name:
            keys = ("sessions_per_minute", "cpu_seconds", "peak_memory_bytes")
            speed, cpu, peak = (by_name[ours][key] / by_name[theirs][key] for key in keys)
            print(
                f"{ours}: {speed:.2f} x the sessions a minute of {theirs}, {cpu:.2f} x its CPU, {peak:.2f} x its peak"
            )
    return rows
