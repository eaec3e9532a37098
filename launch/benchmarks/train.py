"""One training step beside the arithmetic it needs and beside other trainers.

``python launch/benchmark.py train [--json FILE] [--only ROW,…] [--rounds N] [--device cpu|cuda]``

Every row trains a LoRA adapter (rank 16, all linears) from the same base and the same first adapter, on the same token
ids with the same supervised tokens in the same optimizer steps, in a process of its own. Rows alternate; medians of
the rounds are printed. The first step of a process warms up; timed are whole steps after it, with data, clipping and
optimizer.

- ``limit``: the arithmetic alone, as plain calls of torch at the shapes of these steps.
- ``ours``: the product's step on packs. ``plain``: the same with every saving switched off.
- ``peft``: ``transformers`` and ``peft`` in a plain loop. ``trl``: TRL's SFTTrainer.
- on CUDA also ``liger``, ``unsloth``, and ``ours`` at other geometries and formats.

No speed is printed of a row whose gradient norms are not positive, in which a ``lora_B`` is zero after the first step,
or whose losses or gradient norms are not those of ``ours``: it says what is wrong, and the command ends with status 1.

Shares of the limit are by seconds of the wall, and by seconds of the processor, which other programs on the machine
disturb less.

The transcripts are those that the variable ``CORPUS`` names, by default the sample's, or made-up ones where these are
too short. ``--json FILE`` is written anew after each process. With ``--only`` rows that FILE holds of the same setup
are kept, so that a benchmark can be continued.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.training.results import FAILED, NOT_INSTALLED, Results, good, show
from benchmarks.training.rows import PLANS, Plan, System
from cbtrain.environment import describe_environment, quiet_openmp, usable_cores
from cbtrain.errors import UserError

SYSTEMS: dict[System, tuple[str, str]] = {
    "limit": ("limit", "measure"),
    "ours": ("ours", "train"),
    "plain": ("ours", "train_plainly"),
    "peft": ("peers", "peft"),
    "trl": ("trainer", "trl"),
    "liger": ("peers", "liger"),
    "unsloth": ("peers", "unsloth"),
}
"""Module and function of each: a process imports its own system only."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="benchmark.py train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--only", metavar="ROW,…", help="measure these rows only")
    parser.add_argument("--rounds", type=int, help="processes of each row (default: 3, on CUDA 1)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--make", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--row", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    try:
        plan = PLANS["tiny" if parsed.tiny else parsed.device]
        names = _named(parsed.only, plan)
        _refuse_bad_numbers(parsed)
        if parsed.make:
            _make(Path(parsed.make), plan, names, parsed)
        elif parsed.row:
            print(json.dumps(_train(parsed.row[0], Path(parsed.row[1]), plan, parsed)))
        else:
            with _ending_children():
                sys.exit(0 if _compare(plan, names, parsed) else 1)
    except UserError as error:
        sys.exit(str(error))


@contextlib.contextmanager
def _ending_children() -> Iterator[None]:
    """On SIGTERM, end the row's process and remove the folder before this process ends."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse_bad_numbers(parsed: argparse.Namespace) -> None:
    for name in ("rounds", "threads"):
        value = getattr(parsed, name)
        if value is not None and value < 1:
            raise UserError(f"{value} is not a number of {name}", where=f"--{name}", hint="Use 1 or more.")
    if parsed.json and not parsed.json.parent.is_dir():
        raise UserError("its folder does not exist", where=f"--json {parsed.json}", hint="Make it first.")


def _named(only: str | None, plan: Plan) -> list[str]:
    known = [row.name for row in plan.rows]
    if only is None:
        return known
    wanted = only.split(",")
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"no such rows: {', '.join(unknown)}", where="--only", hint=f"Rows: {', '.join(known)}.")
    return [name for name in known if name in wanted]


def _compare(plan: Plan, names: list[str], parsed: argparse.Namespace) -> bool:
    """Measure the rows, print them; return whether all is well."""
    with tempfile.TemporaryDirectory(prefix="cbtrain-bench-") as place:
        folder = Path(place)
        facts = _child(["--make", place, "--only", ",".join(names)], folder, parsed, None)
        setup = {"device": facts["device"], "data": facts["digest"], "threads": parsed.threads}
        results = Results(plan, setup, parsed.json, facts["revision"])
        results.keep_earlier(names)
        if "ours" not in names and results.reference() is None and any(plan.named(name).compared for name in names):
            print("`ours` runs too: the others must have its losses")
            names = ["ours", *names]
        for name in results.kept:
            earlier = results.kept[name]
            print(f"{name} is that of {parsed.json}, written {earlier['written']} at {earlier['revision']}")
        print(f"{facts['source']}: {facts['sessions']} sessions, {facts['tokens']:,} tokens timed a row", flush=True)
        _rounds(results, names, parsed.rounds or plan.rounds, folder, parsed)
    rows = results.rows()
    show(rows)
    return good(rows)


def _rounds(results: Results, names: list[str], rounds: int, folder: Path, parsed: argparse.Namespace) -> None:
    """Measure the rows ``rounds`` times in turn, as long as there is time."""
    began, took = time.monotonic(), dict.fromkeys(names, 0.0)
    late: dict[str, int] = {}  # rounds of rows for which there was no more time
    for number in range(rounds):
        # The other way round every second time: nobody is always the one that comes after.
        for name in names if number % 2 == 0 else reversed(names):
            if name in results.failures:
                continue
            started = time.monotonic()
            if started + took[name] - began > 60 * results.plan.minutes:
                late[name] = len(results.rounds.get(name, ()))
                continue
            words = _measure(name, results, folder, parsed)
            took[name] = time.monotonic() - started
            print(f"round {number + 1}: {name:12} {words}; {took[name]:.0f} s", flush=True)
    for name, number in late.items():
        print(f"{name}: {number} of {rounds} rounds; the {results.plan.minutes:g} minutes are over")
    if unmeasured := [name for name, number in late.items() if number == 0]:
        print(f"To go on: --only {','.join(unmeasured)} with the same --json FILE")


def _measure(name: str, results: Results, folder: Path, parsed: argparse.Namespace) -> str:
    """Train the row once in a process of its own; return in words how it went."""
    try:
        result = _child(["--row", name, str(folder)], folder, parsed, results.plan.row_seconds)
    except _Failed as error:
        results.fail(name, FAILED, str(error))
        return f"failed: {error}"
    if "missing" in result:
        results.fail(name, NOT_INSTALLED, f"pip install {' '.join(result['missing'])}")
        return f"not installed (pip install {' '.join(result['missing'])})"
    results.add(name, result)
    row = next(row for row in results.rows() if row["name"] == name)
    if row["problems"]:
        return "; ".join(row["problems"])
    return f"{result['tokens'] / result['seconds']:,.0f} tokens/s"


class _Failed(Exception):
    """A row's process ended without a result."""


def _child(words: list[str], folder: Path, parsed: argparse.Namespace, seconds: float | None) -> dict[str, Any]:
    """Run this command with ``words`` in a process; return the JSON of its last line. Raises _Failed."""
    words = [*words, "--device", parsed.device, "--threads", str(parsed.threads), *["--tiny"] * parsed.tiny]
    environment = {**os.environ, **quiet_openmp(os.environ), "OMP_NUM_THREADS": str(parsed.threads)}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "datasets")}
    if corpus := environment.get("CORPUS"):
        environment["CORPUS"] = corpus if corpus == "sample" else str(Path(corpus).resolve())
    try:
        done = subprocess.run(
            command("train", *words), capture_output=True, text=True, cwd=folder, env=environment, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise _Failed(f"longer than {seconds:.0f} s") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        if words[0] == "--make":
            raise UserError(said[-1] if said else f"status {done.returncode}")
        raise _Failed(f"status {done.returncode}: {said[-1] if said else 'it has said nothing'}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _make(folder: Path, plan: Plan, names: list[str], parsed: argparse.Namespace) -> None:
    """Write sessions, base and adapter to ``folder``; print facts about them (JSON)."""
    import torch

    from benchmarks.training.run import Run, make_base
    from benchmarks.training.sessions import open_work, prepare

    if parsed.device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no GPU here", where="--device cuda", hint="Use --device cpu.")
    torch.set_num_threads(parsed.threads)
    prepare(plan, folder)
    if compared := [row for row in plan.rows if row.compared and (row.name in names or row.name == "ours")]:
        make_base(Run(compared[0], plan, folder, parsed.device))
    work = open_work(folder)
    facts = {"source": work.source, "sessions": len(work.documents), "tokens": sum(work.tokens[1:])}
    machine = describe_environment()
    device = machine["device"] if parsed.device == "cuda" else "cpu"
    print(json.dumps({**facts, "digest": work.digest, "device": device, "revision": machine["revision"]}))


def _train(name: str, folder: Path, plan: Plan, parsed: argparse.Namespace) -> dict[str, Any]:
    """Train a row in this process; return its result, or ``missing`` packages."""
    import torch

    from benchmarks.training.run import Run, missing

    row = plan.named(name)
    if names := missing(row):
        return {"missing": names}
    torch.set_num_threads(parsed.threads)
    torch.manual_seed(0)
    module, function = SYSTEMS[row.system]
    train = getattr(importlib.import_module(f"benchmarks.training.{module}"), function)
    result: dict[str, Any] = train(Run(row, plan, folder, parsed.device))
    return result
