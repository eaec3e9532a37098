"""How fast transcripts are read and checked on one core, and how memory grows with their number.

``python launch/benchmark.py corpus [PATH] [--sessions N]``
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks import command
from cbtrain.transcripts.checking import check
from cbtrain.transcripts.reading import locate, read
from cbtrain.transcripts.source import files_in
from cbtrain.transcripts.stats import gather
from cbtrain.transcripts.types import Session, Turn
from cbtrain.transcripts.writing import session_record


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmark.py corpus", description=__doc__)
    parser.add_argument("path", nargs="?", default="sample", help="a corpus to read and check")
    parser.add_argument("--sessions", type=int, default=100_000, help="sessions of the made-up corpus")
    parser.add_argument("--measure", metavar="FILE", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if parsed.measure:
        _measure(parsed.measure)
    else:
        _speed(parsed.path)
        _memory(parsed.sessions)


def _speed(path: str) -> None:
    source = locate(path)
    sessions, profiles = list(source.sessions()), source.profiles()
    print(f"{path}: {len(sessions):,} sessions, {sum(s.words for s in sessions):,} words, on one core, best of 3")
    files = files_in(source.path, (".json", ".jsonl", ".txt")) if source.path.is_dir() else [source.path]
    steps: dict[str, Callable[[], object]] = {
        "bytes of the files": lambda: sum(len(file.read_bytes()) for file in files),
        "read": lambda: sum(1 for _ in source.sessions()),
        "read, count": lambda: gather(source.sessions()).counts(),
        "read, check": lambda: sum(1 for _ in check(source.sessions(), profiles)),
    }
    seconds = {name: min(_timed(step) for _ in range(3)) for name, step in steps.items()}
    for name, took in seconds.items():
        print(f"  {name:20} {took:7.3f} s   {took / seconds['read']:6.2f} x reading")


def _memory(count: int) -> None:
    """Check a made-up corpus and a tenth of it in processes of their own, and compare their peaks."""
    words = [word for session in read("sample").sessions() for turn in session.turns for word in turn.text.split()]
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for size in (count // 10, count):
            file = Path(folder) / f"{size}.jsonl"
            with file.open("w", encoding="utf-8") as out:
                out.writelines(json.dumps(session_record(s)) + "\n" for s in _made_up(size, words))
            measure = command("corpus", "--measure", str(file))
            done = subprocess.run(measure, capture_output=True, text=True, check=True)
            seconds, findings, peak = json.loads(done.stdout)
            peaks.append(peak)
            print(
                f"{size:,} sessions ({file.stat().st_size / 1e6:,.0f} MB): read and checked in {seconds:.1f} s, "
                f"{size / seconds:,.0f} sessions/s, {findings:,} findings, peak memory {peak / 1e6:,.0f} MB"
            )
    grown = (peaks[1] - peaks[0]) / (count - count // 10)
    print(f"each session more costs {grown / 1e3:.2f} kB of memory")


def _made_up(count: int, words: list[str]) -> Iterator[Session]:
    draw = random.Random(0)
    for number in range(count):
        turns = (Turn(("patient", "therapist")[i % 2], " ".join(draw.choices(words, k=40))) for i in range(16))
        yield Session(f"course-{number // 20}", number % 20 + 1, tuple(turns))


def _measure(file: str) -> None:
    started = time.perf_counter()
    findings = _count(check(locate(file).sessions(), {}))
    seconds = time.perf_counter() - started
    # Linux gives kilobytes, macOS bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps([seconds, findings, peak]))


def _count(items: Iterable[object]) -> int:
    return sum(1 for _ in items)


def _timed(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
