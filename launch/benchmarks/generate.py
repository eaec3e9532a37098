"""Many concurrent dialogues on one model: the engine beside ``transformers``.

``python launch/benchmark.py generate [--sessions N …] [--turns N] [--rounds N] [--corpus PATH] [--json FILE]``

Each dialogue has a system prompt that all share, and turns whose lengths are those of the corpus. Every row answers the
same prompts greedily, with the same number of tokens, in a process of its own; rows alternate, and medians are printed.

- ``ours``: the engine; a dialogue's next turn is asked for as soon as its last one is there.
- ``ours-3-adapters``: the same, a third of the dialogues with each of three LoRA adapters (rank 16, all linears).
- ``static``: ``transformers.generate`` on one left-padded batch of all dialogues, which is read again every turn.
- ``transformers-cb``: continuous batching of ``transformers``; it reads a dialogue again every turn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.random_llama import save_random_llama

ROWS = ("ours", "ours-3-adapters", "static", "transformers-cb")
GEOMETRY: dict[str, Any] = {
    "vocab_size": 16_384,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SYSTEM_TOKENS, LONGEST_TURN, TOKENS_PER_WORD = 60, 300, 4 / 3
GIGA = 1e9

Plan = list[list[tuple[int, int]]]
"""For each dialogue and turn: the patient's tokens and the therapist's."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="benchmark.py generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--turns", type=int, default=10, help="therapist's turns of a dialogue")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", default="sample", help="lengths of turns are drawn from it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--row", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.row:
        name, folder = parsed.row
        print(json.dumps(_row(name, Path(folder), parsed.threads)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        _make(Path(folder))
        for sessions in parsed.sessions:
            plan = make_plan(_turn_lengths(parsed.corpus), sessions, parsed.turns)
            (Path(folder) / "plan.json").write_text(json.dumps(plan))
            tokens = [sum(turn[side] for dialogue in plan for turn in dialogue) for side in (0, 1)]
            print(
                f"\n{sessions} dialogues of {parsed.turns} turns, {tokens[0]:,} patient's tokens, {tokens[1]:,} drawn"
            )
            rows += _compare(parsed.rows, sessions, parsed.rounds, folder, parsed.threads)
    if parsed.json:
        parsed.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


def make_plan(lengths: list[tuple[int, int]], sessions: int, turns: int) -> Plan:
    """Return the lengths of all turns, drawn with a fixed seed."""
    drawn = random.Random(1)
    return [[drawn.choice(lengths) for _ in range(turns)] for _ in range(sessions)]


def prompt_tokens(dialogue: int, turn: int, count: int, vocabulary: int) -> list[int]:
    """Return ``count`` token ids that depend on the dialogue and the turn only; dialogue -1 is the system prompt."""
    drawn = random.Random(f"{dialogue}|{turn}")
    return [drawn.randrange(3, vocabulary) for _ in range(count)]


def _turn_lengths(path: str) -> list[tuple[int, int]]:
    """Return the lengths in tokens of each patient's turn of a corpus and the therapist's turn after it."""
    from cbtrain.transcripts.reading import read

    lengths = []
    for course in read(path).courses:
        for session in course.sessions:
            for one, other in zip(session.turns, session.turns[1:], strict=False):
                if (one.role, other.role) == ("patient", "therapist"):
                    pair = [round(len(turn.text.split()) * TOKENS_PER_WORD) for turn in (one, other)]
                    lengths.append((min(max(pair[0], 1), LONGEST_TURN), min(max(pair[1], 1), LONGEST_TURN)))
    return lengths


def _make(folder: Path) -> None:
    """Write a model of random weights, and three adapters, to ``folder``."""
    import torch

    from cbtrain.model.adapters.methods import inject, save_adapter
    from cbtrain.model.config import LoraConfig
    from cbtrain.model.weights.loading import load_decoder

    save_random_llama(folder / "model", GEOMETRY, theta=500_000.0)
    for number in range(3):
        decoder = load_decoder(str(folder / "model"))
        adapter = inject(decoder, LoraConfig(rank=16), seed=number)
        generator = torch.Generator().manual_seed(number)
        for name, parameter in adapter.parameters().items():
            if name.endswith("lora_B.weight"):
                parameter.data.normal_(0, 0.05, generator=generator)
        save_adapter(decoder, folder / f"adapter-{number}", base="model")


def _compare(names: list[str], sessions: int, rounds: int, folder: str, threads: int) -> list[dict[str, Any]]:
    """Run the rows ``rounds`` times in turn; print and return their medians."""
    from cbtrain.environment import quiet_openmp

    environment = {**os.environ, **quiet_openmp(os.environ)}
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(rounds):
        # The other way round every second time: nobody is always the one that comes after.
        for name in names if number % 2 == 0 else reversed(names):
            row = command("generate", "--threads", str(threads), "--row", name, folder)
            done = subprocess.run(row, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
            if done.returncode:
                print(f"  {name} cannot run here")
                continue
            measured[name].append(json.loads(done.stdout.splitlines()[-1]))
    static = statistics.median([m["seconds"] for m in measured.get("static", [])] or [float("nan")])
    rows = []
    print(f"  {'':17} {'tokens/s':>9} {'x static':>9} {'CPU s':>7} {'peak':>9}  floor  answers as `ours`")
    for name, results in measured.items():
        if not results:
            continue
        medians = {key: statistics.median(m[key] for m in results) for key in ("seconds", "cpu_seconds", "peak")}
        same = _same(results[0]["answers"], measured["ours"][0]["answers"]) if measured.get("ours") else float("nan")
        floor = results[0].get("floor")
        share = f"{floor / medians['seconds']:6.0%}" if floor else "      "
        print(
            f"  {name:17} {results[0]['tokens'] / medians['seconds']:9.1f} {static / medians['seconds']:8.2f}x "
            f"{medians['cpu_seconds']:7.1f} {medians['peak'] / 1e6:6,.0f} MB {share}  {same:.0%}"
        )
        rows.append(
            {
                "name": name,
                "sessions": sessions,
                "generated_tokens_per_second": results[0]["tokens"] / medians["seconds"],
                "cpu_seconds": medians["cpu_seconds"],
                "peak_memory_bytes": int(medians["peak"]),
                "seconds": [m["seconds"] for m in results],
                "share_of_floor": floor and floor / medians["seconds"],
            }
        )
    return rows


def _same(answers: list[str], others: list[str]) -> float:
    return sum(a == b for a, b in zip(answers, others, strict=True)) / len(others)


def _row(name: str, folder: Path, threads: int) -> dict[str, Any]:
    """Answer the dialogues of the plan; return seconds, peak memory in bytes, and a hash of each dialogue's answers."""
    import torch

    torch.set_num_threads(threads)
    plan: Plan = json.loads((folder / "plan.json").read_text())
    run = {"static": _static, "transformers-cb": _continuous}.get(name)
    extra: dict[str, Any] = {}
    if run:
        model = _transformers_model(folder)
        begin, cpu = time.perf_counter(), time.process_time()
        answers = run(model, plan)
    else:
        engine, adapters = _engine(folder, len(plan), with_adapters=name == "ours-3-adapters")
        work = _Work(engine)
        begin, cpu = time.perf_counter(), time.process_time()
        answers = _ours(engine, plan, adapters)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if not run:
        extra["floor"] = work.floor(engine)
    digests = [hashlib.sha256(json.dumps(answer).encode()).hexdigest()[:12] for answer in answers]
    tokens = sum(therapist for dialogue in plan for _, therapist in dialogue)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak": peak, "tokens": tokens, "answers": digests, **extra}


class _Work:
    """Counts what the engine has to do at least: the floor of its time at rates that are measured here."""

    def __init__(self, engine: Any) -> None:
        self.steps = self.rows = self.seen = self.answers = 0
        read = engine._read

        def counted(batch: Any) -> Any:
            self.steps += 1
            self.rows += sum(part.length for part in batch)
            self.seen += sum(len(part.run.held.tokens) + part.length for part in batch)
            self.answers += sum(part.last for part in batch)
            return read(batch)

        engine._read = counted

    def floor(self, engine: Any) -> float:
        """Return the seconds in which weights, keys and values could be read once a step, and the products be done."""
        import torch

        decoder = engine.decoder
        head = decoder.lm_head.weight.numel()
        linears = sum(linear.in_features * linear.out_features for linear in decoder.linears.values())
        a = decoder.architecture
        read = 4 * self.steps * (linears + head) + engine.cache.bytes_per_token * self.seen
        products = 2 * (linears * self.rows + head * self.answers) + 4 * a.layers * a.heads * a.head_dim * self.seen
        memory = torch.ones(2**26)
        square = torch.randn(2048, 2048)
        bytes_per_s = memory.numel() * 4 / min(_timed(memory.sum) for _ in range(5))
        flops_per_s = 2 * 2048**3 / min(_timed(lambda: square @ square) for _ in range(5))
        return float(read / bytes_per_s + products / flops_per_s)


def _timed(function: Any) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def _prompts(plan: Plan, vocabulary: int) -> Iterator[tuple[int, list[int]]]:
    """Yield each dialogue's number and the tokens before its first turn."""
    for dialogue in range(len(plan)):
        yield dialogue, prompt_tokens(-1, 0, SYSTEM_TOKENS, vocabulary)


def _engine(folder: Path, sessions: int, *, with_adapters: bool) -> tuple[Any, list[str | None]]:
    from cbtrain.generation.config import EngineConfig
    from cbtrain.generation.engine import GenerationEngine
    from cbtrain.model.adapters.mounted import MountedAdapters
    from cbtrain.model.weights.loading import load_decoder

    decoder = load_decoder(str(folder / "model"))
    mounted = MountedAdapters(decoder)
    names: list[str | None] = [None]
    if with_adapters:
        names = [f"adapter-{number}" for number in range(3)]
        for name in names:
            mounted.mount(str(name), folder / str(name))
    config = EngineConfig(slots=sessions, context_tokens=8192)
    return GenerationEngine(decoder, config, stop_ids=frozenset(), adapters=mounted), names


def _ours(engine: Any, plan: Plan, adapters: list[str | None]) -> list[list[int]]:
    from cbtrain.generation.config import SamplingConfig
    from cbtrain.generation.request import Request

    vocabulary = engine.decoder.architecture.vocabulary
    history = dict(_prompts(plan, vocabulary))
    answers: list[list[int]] = [[] for _ in plan]
    turn = [0] * len(plan)
    running: dict[int, Any] = {}

    def ask(dialogue: int) -> None:
        patient, therapist = plan[dialogue][turn[dialogue]]
        history[dialogue] += prompt_tokens(dialogue, turn[dialogue], patient, vocabulary)
        sampling = SamplingConfig(temperature=0, max_tokens=therapist)
        adapter = adapters[dialogue % len(adapters)]
        running[dialogue] = engine.submit(Request(list(history[dialogue]), sampling, dialogue, adapter))

    for dialogue in range(len(plan)):
        ask(dialogue)
    while running:
        engine.step()
        for dialogue in [number for number, future in running.items() if future.done()]:
            ids = running.pop(dialogue).result().ids
            history[dialogue] += ids
            answers[dialogue] += ids
            turn[dialogue] += 1
            if turn[dialogue] < len(plan[dialogue]):
                ask(dialogue)
    return answers


def _transformers_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder / "model", trust_remote_code=False).eval()


def _static(model: Any, plan: Plan) -> list[list[int]]:
    import torch

    vocabulary = model.config.vocab_size
    history = dict(_prompts(plan, vocabulary))
    answers: list[list[int]] = [[] for _ in plan]
    with torch.no_grad():
        for turn in range(len(plan[0])):
            for dialogue, turns in enumerate(plan):
                history[dialogue] += prompt_tokens(dialogue, turn, turns[turn][0], vocabulary)
            longest, count = max(map(len, history.values())), max(turns[turn][1] for turns in plan)
            ids = torch.zeros(len(plan), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for dialogue, tokens in history.items():
                ids[dialogue, longest - len(tokens) :] = torch.tensor(tokens)
                mask[dialogue, longest - len(tokens) :] = 1
            out = model.generate(
                ids, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0
            )
            for dialogue, turns in enumerate(plan):
                new = out[dialogue, longest : longest + turns[turn][1]].tolist()
                history[dialogue] += new
                answers[dialogue] += new
    return answers


def _continuous(model: Any, plan: Plan) -> list[list[int]]:
    from transformers import GenerationConfig

    vocabulary = model.config.vocab_size
    history = dict(_prompts(plan, vocabulary))
    answers: list[list[int]] = [[] for _ in plan]
    turn = [0] * len(plan)
    # No end token: every answer has its planned length.
    generation = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=LONGEST_TURN)
    manager = model.init_continuous_batching(generation_config=generation)
    manager.start()

    def ask(dialogue: int) -> None:
        patient, therapist = plan[dialogue][turn[dialogue]]
        history[dialogue] += prompt_tokens(dialogue, turn[dialogue], patient, vocabulary)
        manager.add_request(history[dialogue], f"{dialogue}:{turn[dialogue]}", max_new_tokens=therapist)

    for dialogue in range(len(plan)):
        ask(dialogue)
    left = len(plan)
    while left:
        result = manager.get_result(timeout=60)
        if result is None:
            raise RuntimeError("continuous batching has stopped")
        if not result.is_finished():
            continue
        dialogue = int(result.request_id.split(":")[0])
        ids = list(result.generated_tokens)
        history[dialogue] += ids
        answers[dialogue] += ids
        turn[dialogue] += 1
        if turn[dialogue] < len(plan[dialogue]):
            ask(dialogue)
        else:
            left -= 1
    manager.stop(block=True)
    return answers
