"""Four adapters by ``cbtrain sweep`` beside four runs of ``cbtrain train``: ``python launch/benchmark.py sweep``.

Both train the same runs (two seeds, two ranks) over the same base of random weights, each command in a process of its
own, in turn, several rounds. Wall time and processor time are summed over the commands, memory is the highest resident
set of one. CORPUS names the transcripts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.random_llama import save_random_llama

GEOMETRIES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "heads": 4, "kv_heads": 2, "intermediate_size": 160},
    "mid": {"hidden_size": 512, "num_hidden_layers": 8, "heads": 8, "kv_heads": 4, "intermediate_size": 1408},
}
VOCABULARY = {"tiny": 4096, "mid": 32_000}

RUNS = {
    "seed-0": {},
    "seed-1": {"therapist.seed": 1},
    "rank-8": {"therapist.lora.rank": 8},
    "rank-8-seed-1": {"therapist.lora.rank": 8, "therapist.seed": 1},
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmark.py sweep", description=__doc__)
    parser.add_argument("--geometry", choices=list(GEOMETRIES), default="tiny")
    parser.add_argument("--tokens", type=int, default=60_000, help="token_budget of each run (default: %(default)s)")
    parser.add_argument("--pack", type=int, default=4096, help="tokens of a pack (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parsed = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make(folder, parsed)
        rounds = [_round(folder, number) for number in range(parsed.rounds)]
        _require_same(folder)
    figures = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    for what in ("wall", "processor"):
        figures[f"{what}_ratio"] = statistics.median(one[f"sweep_{what}"] / one[f"single_{what}"] for one in rounds)
    figures["memory_ratio"] = statistics.median(one["sweep_peak"] / one["single_peak"] for one in rounds)
    for key, value in figures.items():
        print(f"{key:20} {value:,.3f}")
    if parsed.json:
        row = {"geometry": parsed.geometry, "tokens": parsed.tokens, "rounds": rounds, **figures}
        Path(parsed.json).write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")


def _make(folder: Path, parsed: argparse.Namespace) -> None:
    """Write base, settings and sweep to ``folder``."""
    from cbtrain.tokens.tokenizer import save_tokenizer, train_tokenizer
    from cbtrain.transcripts.reading import read

    corpus = os.environ.get("CORPUS", "sample")
    texts = [turn.text for session in read(corpus).sessions() for turn in session.turns][:20_000]
    tokenizer = train_tokenizer(texts, 1024, 32_768)
    sizes = dict(GEOMETRIES[parsed.geometry])
    sizes |= {"num_attention_heads": sizes.pop("heads"), "num_key_value_heads": sizes.pop("kv_heads")}
    sizes |= {"max_position_embeddings": 32_768, "vocab_size": VOCABULARY[parsed.geometry]}
    sizes |= {"tie_word_embeddings": False, "eos_token_id": tokenizer.eos_token_id}
    save_random_llama(folder / "base", sizes)
    save_tokenizer(tokenizer, folder / "base")
    common = {
        "model": {"path": str(folder / "base")},
        "corpus": {"path": corpus},
        "threads": parsed.threads,
        "tokens": {"cache": "none"},
        "training": {"speakers": ["therapist"]},
        "therapist": {
            "pack_tokens": parsed.pack,
            "token_budget": parsed.tokens,
            "max_epochs": 99,
            "validate_every": parsed.tokens // 3,
            "validation_tokens": 6000,
            "patience": 99,
        },
    }
    (folder / "common.yaml").write_text(yaml.safe_dump(common))
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"common": common, "runs": RUNS}, sort_keys=False))


def _round(folder: Path, number: int) -> dict[str, float]:
    """Return seconds and bytes of both, the one that is first changing from round to round."""
    measured: dict[str, float] = {}
    for name in ("single", "sweep") if number % 2 else ("sweep", "single"):
        out, commands = folder / f"{name}-{number}", []
        if name == "sweep":
            commands.append(["sweep", "sweep.yaml", "--out", str(out)])
        else:
            for run, settings in RUNS.items():
                words = [f"{key}={value}" for key, value in settings.items()]
                commands.append(["train", "--config", "common.yaml", *words, "--out", str(out / run)])
        runs = [_measure(folder, words) for words in commands]
        measured[f"{name}_wall"] = sum(wall for wall, _, _ in runs)
        measured[f"{name}_processor"] = sum(processor for _, processor, _ in runs)
        measured[f"{name}_peak"] = max(peak for _, _, peak in runs)
        print(f"round {number}, {name}: {measured[f'{name}_wall']:.1f} s", file=sys.stderr)
    return measured


def _measure(folder: Path, words: list[str]) -> tuple[float, float, float]:
    """Return wall time and processor time (seconds) and the highest resident set (bytes) of a command."""
    started = time.perf_counter()
    command = [sys.executable, "-c", "from cbtrain.cli.main import entry; entry()", *words]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(words)}: status {process.returncode}")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, 1024.0 * used.ru_maxrss


def _require_same(folder: Path) -> None:
    """End the program if both have not come to the same adapters."""
    for run in RUNS:
        files = [folder / f"{name}-0" / run / "therapist" / "adapter_model.safetensors" for name in ("single", "sweep")]
        if files[0].read_bytes() != files[1].read_bytes():
            sys.exit(f"{run} is not the same adapter")
