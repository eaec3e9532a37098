"""Memory and time as planned, beside what training then takes: ``python launch/benchmark.py plan [--device cuda]``.

Each figure comes from a process of its own, so that a peak is its own. The plan is made first, without the model's
weights; then the real decoder, engine and step run on the same pack.
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
from dataclasses import replace
from typing import Any

import torch
from pydantic import BaseModel

from benchmarks import command
from cbtrain.environment import quiet_openmp
from cbtrain.model.architecture import Architecture
from cbtrain.model.config import FullConfig, LoraConfig
from cbtrain.model.decoder import Decoder
from cbtrain.model.linears.formats import choose_weight_format
from cbtrain.model.rope_keys import Rope
from cbtrain.tokens.pack import Pack
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.engine import TrainingEngine
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.loss import loss_sum
from cbtrain.training.memory.malloc import returning_memory
from cbtrain.training.memory.meter import MemoryMeter
from cbtrain.training.planning.memory_plan import predict_memory
from cbtrain.training.planning.random_model import random_decoder
from cbtrain.training.planning.scenario import Scenario, attention_of
from cbtrain.training.planning.timing import Clock, measure_time
from cbtrain.training.planning.workload import PackShape

STEPS = 5

ROUNDS = 2
"""Times that a row is planned and measured in turn: the machine may be shared."""

CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}

TOLERANCE = {"cpu": 0.15, "cuda": 0.10}


def geometry(vocabulary: int, hidden: int, layers: int, heads: int, kv_heads: int, inner: int) -> Architecture:
    return Architecture(
        name="LlamaForCausalLM",
        vocabulary=vocabulary,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        intermediate=inner,
        max_positions=32_768,
        norm_eps=1e-5,
        rope=Rope(),
        tied_embeddings=True,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        sliding_window=None,
        eos_ids=(1,),
    )


GEOMETRIES = {
    "3M": geometry(4096, 192, 4, 4, 2, 512),  # what a study makes where no model is named
    "32M": geometry(16_384, 512, 8, 8, 4, 1408),
    "134M": geometry(49_152, 576, 30, 9, 3, 1536),  # SmolLM2-135M
    "1B": geometry(128_256, 2048, 16, 32, 8, 8192),  # Llama 3.2 1B
    "8B": replace(geometry(128_256, 4096, 32, 32, 8, 14_336), tied_embeddings=False),  # Llama 3.1 8B
}
SHAPES = {
    "1024 in 1": PackShape((1024,), 600),
    "1024 in 3": PackShape((480, 344, 200), 600),
    "2048 in 4": PackShape((900, 600, 348, 200), 1200),
    "8192 in 2": PackShape((4700, 3492), 5000),
}
ROWS: dict[str, list[tuple[str, str, str, str, str, bool]]] = {
    # geometry, weights, method, activation checkpointing, pack, several micro-batches a step
    "cpu": [
        ("3M", "fp32", "lora", "none", "1024 in 3", False),
        ("3M", "fp32", "full", "none", "1024 in 3", False),
        ("32M", "fp32", "lora", "none", "2048 in 4", False),
        ("32M", "fp32", "lora", "selective", "2048 in 4", False),
        ("32M", "fp32", "lora", "full", "1024 in 1", True),
        ("32M", "bf16", "lora", "none", "1024 in 1", False),
        ("32M", "bf16", "lora", "selective", "2048 in 4", False),
        ("32M", "nf4", "lora", "none", "1024 in 3", False),
        ("32M", "nf4", "lora", "full", "2048 in 4", False),
        ("32M", "fp32", "full", "none", "1024 in 3", False),
        ("32M", "fp32", "full", "full", "2048 in 4", True),
        ("32M", "bf16", "full", "none", "1024 in 3", True),
        ("134M", "fp32", "lora", "none", "1024 in 1", False),
        ("134M", "fp32", "lora", "selective", "1024 in 3", False),
        ("134M", "fp32", "lora", "full", "1024 in 1", True),
        ("134M", "bf16", "lora", "none", "1024 in 3", False),
        ("134M", "nf4", "lora", "full", "1024 in 3", False),
        ("134M", "fp32", "full", "full", "1024 in 1", False),
    ],
    "cuda": [
        ("1B", "bf16", "lora", "none", "8192 in 2", False),
        ("1B", "bf16", "lora", "selective", "8192 in 2", True),
        ("1B", "fp32", "full", "full", "2048 in 4", False),
        ("8B", "bf16", "lora", "selective", "8192 in 2", False),
        ("8B", "bf16", "lora", "full", "8192 in 2", True),
        ("8B", "nf4", "lora", "selective", "8192 in 2", False),
        ("8B", "nf4", "lora", "full", "8192 in 2", False),
    ],
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmark.py plan", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--only", type=int, action="append", help="number of a row; may be given several times")
    parser.add_argument(
        "--clock",
        default="wall",
        choices=CLOCKS,
        help="processor: seconds that processors worked for it, where other programs run beside (CPU only)",
    )
    parser.add_argument("--half", nargs=2, metavar=("WHICH", "ROW"), help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    rows = ROWS[parsed.device]
    if parsed.half:
        which, number = parsed.half
        work = planned if which == "planned" else measured
        print(json.dumps(work(*scenario_of(rows[int(number)], parsed.device), CLOCKS[parsed.clock])))
        return
    print(f"{'':52} {'memory (MB)':>22} {'ratio':>6}   {'micro-batch + step (s)':>22} {'ratio':>6}")
    good = True
    for number, row in enumerate(rows):
        if parsed.only is None or number in parsed.only:
            good &= _compare(number, row, parsed.device, parsed.clock)
    sys.exit(0 if good else 1)


def _compare(number: int, row: tuple[Any, ...], device: str, clock: str) -> bool:
    halves = [[_half(which, number, device, clock) for which in ("planned", "measured")] for _ in range(ROUNDS)]
    plan, real = (_quietest([pair[side] for pair in halves]) for side in (0, 1))
    memory, seconds = plan["peak"] / real["peak"], plan["seconds"] / real["seconds"]
    within = TOLERANCE[device]
    good = abs(memory - 1) <= within and abs(seconds - 1) <= within
    verdict = "ok" if good else f"not within {within:.0%}"
    name = f"{number:2} {row[0]:5} {row[1]:4} {row[2]:4} checkpointing {row[3]:9} {row[4]:9}{' accumulates' * row[5]}"
    print(
        f"{name:52} {plan['peak'] / 1e6:9,.0f} /{real['peak'] / 1e6:9,.0f}   {memory:6.3f}   "
        f"{plan['seconds']:9.3f} /{real['seconds']:9.3f}   {seconds:6.3f}  {verdict}",
        flush=True,
    )
    return good


def _quietest(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The median peak, and the time that other programs disturbed least."""
    return {
        "peak": statistics.median(half["peak"] for half in rounds),
        "seconds": min(half["seconds"] for half in rounds),
    }


def _half(which: str, number: int, device: str, clock: str) -> dict[str, Any]:
    half = command("plan", "--device", device, "--clock", clock, "--half", which, str(number))
    environment = {**os.environ, **quiet_openmp(os.environ)}  # as the cbtrain command sets it
    with tempfile.TemporaryDirectory() as folder:  # the repository's folders must not shadow packages
        done = subprocess.run(half, stdout=subprocess.PIPE, text=True, check=True, cwd=folder, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def scenario_of(row: tuple[str, str, str, str, str, bool], device: str) -> tuple[Scenario, PackShape]:
    sizes, weights, method, level, pack, accumulates = row
    weight_format, architecture = choose_weight_format(weights, device), GEOMETRIES[sizes]
    adapter: BaseModel = LoraConfig(rank=16) if method == "lora" else FullConfig()
    attention = attention_of("auto", device, weight_format.compute, architecture.head_dim)
    scenario = Scenario(
        architecture, weight_format, adapter, activation_checkpointing=level, device=device, attention=attention
    )
    return replace(scenario, accumulates=accumulates), SHAPES[pack]


def planned(scenario: Scenario, shape: PackShape, clock: Clock = time.perf_counter) -> dict[str, Any]:
    """What the plan says: peak in bytes, seconds of a micro-batch and an optimizer step."""
    split = predict_memory(scenario, shape)
    timing = measure_time(scenario, shape, torch.device(scenario.device), clock)
    return {"peak": split.total, "seconds": timing.micro_batch + timing.step}


def measured(
    scenario: Scenario, shape: PackShape, clock: Clock = time.perf_counter, *, steps: int = STEPS
) -> dict[str, Any]:
    """What training takes from the second step on; the quickest step counts, as in the plan."""
    device = torch.device(scenario.device)
    with MemoryMeter(device) as meter:
        decoder = random_decoder(scenario, device)
        engine = TorchEngine(decoder, StageConfig(optimizer=scenario.optimizer))
        pack, seconds = shape.pack(scenario.architecture.vocabulary), []
        with returning_memory(device, scenario.activation_checkpointing):  # after loading, as the loop does
            meter.reset_peak()
            for step in range(steps):
                took = _step(engine, decoder, pack, scenario, clock)
                if step:
                    seconds.append(took)
            return {"peak": meter.peak, "seconds": min(seconds)}


def _step(engine: TrainingEngine, decoder: Decoder, pack: Pack, scenario: Scenario, clock: Clock) -> float:
    """Seconds of a micro-batch and an optimizer step, also where the step has two micro-batches."""
    started = clock()
    for _ in range(1 + scenario.accumulates):
        engine.backward(loss_sum(decoder, pack))
    passes = clock() - started
    engine.step(1e-6)
    if scenario.device == "cuda":
        torch.cuda.synchronize()
    took = clock() - started
    return took - passes / 2 if scenario.accumulates else took
