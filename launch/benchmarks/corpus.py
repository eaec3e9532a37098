"""How fast transcripts are read and checked on one core, how memory grows with their number, and how other layouts
compare with our own.

``python launch/benchmark.py corpus [PATH] [--sessions N]``
"""

from __future__ import annotations

import argparse
import csv
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
from cbtrain.transcripts.mapping.config import CorpusMap
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
    parser.add_argument("--count", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--map", default="{}", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if parsed.measure:
        _report(lambda: _count(check(locate(parsed.measure).sessions(), {})))
    elif parsed.count:
        source = locate(parsed.count, corpus_map=CorpusMap.model_validate(json.loads(parsed.map)))
        _report(lambda: gather(source.sessions()).counts()["turns"])
    else:
        _speed(parsed.path)
        _memory(parsed.sessions)
        _layouts(parsed.sessions)


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


def _layouts(count: int) -> None:
    """Read and count one made-up corpus in several layouts, each in a process of its own, our own layout first."""
    words = [word for session in read("sample").sessions() for turn in session.turns for word in turn.text.split()]
    print(f"{count:,} sessions read and counted, by layout")
    own = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, (suffix, write, mapping) in LAYOUTS.items():
            file = Path(folder) / f"corpus{suffix}"
            write(file, _made_up(count, words))
            measure = command("corpus", "--count", str(file), "--map", json.dumps(mapping))
            done = subprocess.run(measure, capture_output=True, text=True, check=True)
            seconds, turns, peak = json.loads(done.stdout)
            assert turns == 16 * count, name
            own = own or seconds
            print(f"  {name:34} {seconds:6.1f} s   speed {own / seconds:5.2f} x   peak memory {peak / 1e6:,.0f} MB")
            file.unlink()


def _jsonl(record: Callable[[Session], object]) -> Callable[[Path, Iterable[Session]], None]:
    def write(file: Path, sessions: Iterable[Session]) -> None:
        with file.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(record(session)) + "\n" for session in sessions)

    return write


def _json(file: Path, sessions: Iterable[Session]) -> None:
    """One list of ShareGPT conversations."""
    with file.open("w", encoding="utf-8") as out:
        for number, session in enumerate(sessions):
            turns = [{"from": "human" if t.role == "patient" else "gpt", "value": t.text} for t in session.turns]
            out.write(("[" if number == 0 else ",\n") + json.dumps({"conversations": turns}))
        out.write("]\n")


def _rows(session: Session) -> list[tuple[str, int, str, str]]:
    return [(session.id, number, turn.role, turn.text) for number, turn in enumerate(session.turns)]


def _csv(file: Path, sessions: Iterable[Session]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("dialogue_id", "turn", "speaker", "text"))
        for session in sessions:
            writer.writerows(_rows(session))


def _pairs(file: Path, sessions: Iterable[Session]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("session", "question", "answer"))
        for session in sessions:
            texts = [turn.text for turn in session.turns]
            writer.writerows((session.id, *pair) for pair in zip(texts[::2], texts[1::2], strict=True))


def _parquet(file: Path, sessions: Iterable[Session]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("dialogue_id", pa.string()), ("turn", pa.int64()), ("speaker", pa.string()), ("text", pa.string())]
    )
    with pq.ParquetWriter(file, schema) as writer:
        batch: list[tuple[str, int, str, str]] = []
        for session in sessions:
            batch += _rows(session)
            if len(batch) > 50_000:
                writer.write_table(pa.table(list(zip(*batch, strict=True)), schema=schema))
                batch = []
        if batch:
            writer.write_table(pa.table(list(zip(*batch, strict=True)), schema=schema))


def _messages(session: Session) -> object:
    roles = {"patient": "user", "therapist": "assistant"}
    return {"messages": [{"role": roles[turn.role], "content": turn.text} for turn in session.turns]}


def _labelled(session: Session) -> object:
    return {"dialogue": "\n".join(f"{turn.role.capitalize()}: {turn.text}" for turn in session.turns)}


Writer = Callable[[Path, Iterable[Session]], None]
LAYOUTS: dict[str, tuple[str, Writer, dict[str, object]]] = {
    "our own": (".jsonl", _jsonl(session_record), {}),
    "messages, JSON Lines": (".jsonl", _jsonl(_messages), {}),
    "ShareGPT, one JSON list": (".json", _json, {}),
    "labelled text in a field": (".jsonl", _jsonl(_labelled), {"each": "text", "text": "dialogue"}),
    "CSV, a turn in each row": (".csv", _csv, {}),
    "CSV, a pair in each row": (
        ".csv",
        _pairs,
        {"each": "pair", "session": "session", "patient": "question", "therapist": "answer"},
    ),
    "Parquet, a turn in each row": (".parquet", _parquet, {}),
}
"""Name, suffix, writer and map of each layout."""


def _report(measured: Callable[[], int]) -> None:
    """Print seconds of the processor, result and peak memory in bytes of one step, as JSON."""
    started = time.process_time()
    result = measured()
    seconds = time.process_time() - started
    # Linux gives kilobytes, macOS bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps([seconds, result, peak]))


def _count(items: Iterable[object]) -> int:
    return sum(1 for _ in items)


def _timed(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
