"""Memory and time of methods of fine-tuning, side by side: ``python launch/benchmark.py methods``.

Every method trains a Llama of random weights on the same pack, each in a process of its own, in turn, several rounds.
``--nf4`` holds the base in NF4, for methods that can. Seconds are those of a forward and backward pass and an optimizer
step, the quickest of several; memory is the highest of the process, less that before the model was made.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "half": {"method": "half"},
    "lora": {"method": "lora"},
    "dora": {"method": "dora"},
    "sparse": {"method": "sparse"},
    "sparse-ag": {"method": "sparse", "options": {"selection": "accumulated-gradients", "every": 4, "collect": 2}},
    "hyplora": {"method": "hyplora", "options": {"rank": 16}},
}
"""Settings of a stage. LoRA and what is like it have rank 16."""

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 1408,
    "vocab_size": 16_000,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    "tie_word_embeddings": False,
    "eos_token_id": 2,
}

STEPS = 5
"""Steps of a process; the first warms up."""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmark.py methods", description=__doc__)
    parser.add_argument("--tokens", type=int, default=2048, help="of a pack, two documents (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nf4", action="store_true", help="hold the base in NF4")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.one:
        print(json.dumps(_train(parsed.one, parsed)))
        return
    names = [name for name in METHODS if not (parsed.nf4 and name in ("full", "half"))]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(parsed.rounds):
        for name in names:
            command = [sys.executable, sys.argv[0], "methods", *arguments, "--one", name]
            rounds[name].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    _report(rounds, "lora" if parsed.nf4 else "full")
    if parsed.json:
        Path(parsed.json).write_text(json.dumps(rounds, indent=2) + "\n", encoding="utf-8")


def _report(rounds: dict[str, list[dict[str, float]]], beside: str) -> None:
    """Print medians, and medians of the ratios to the method ``beside`` in the same round."""
    print(f"{'':12}{'trained':>12}{'seconds':>10}{'MB':>8}{'time /':>9} {beside}{'memory /':>10} {beside}")
    for name, found in rounds.items():
        ratios = [
            statistics.median(one[key] / other[key] for one, other in zip(found, rounds[beside], strict=True))
            for key in ("seconds", "bytes")
        ]
        seconds, used = (statistics.median(one[key] for one in found) for key in ("seconds", "bytes"))
        row = f"{name:12}{found[0]['trained']:>12,.0f}{seconds:>10.2f}{used / 1e6:>8,.0f}"
        print(f"{row}{ratios[0]:>9.2f}{'':{len(beside) + 1}}{ratios[1]:>10.2f}")


def _train(name: str, parsed: argparse.Namespace) -> dict[str, float]:
    """Train by one method; return its seconds, bytes, and the number of its trained weights."""
    import torch

    from cbtrain.model.architecture import parse_architecture
    from cbtrain.model.linears.formats import WeightFormat
    from cbtrain.training.config import StageConfig
    from cbtrain.training.engines.torch_engine import TorchEngine
    from cbtrain.training.loss import loss_sum
    from cbtrain.training.memory.malloc import returning_memory
    from cbtrain.training.memory.meter import MemoryMeter
    from cbtrain.training.planning.random_model import random_decoder
    from cbtrain.training.planning.scenario import Scenario
    from cbtrain.training.planning.workload import PackShape

    torch.set_num_threads(parsed.threads)
    settings, cpu = StageConfig(**METHODS[name]), torch.device("cpu")
    architecture = parse_architecture(LLAMA, "benchmark")
    weights = WeightFormat("nf4" if parsed.nf4 else "fp32", torch.float32)
    shape = PackShape((parsed.tokens // 2, parsed.tokens // 2), parsed.tokens // 2)
    with MemoryMeter(cpu) as meter, returning_memory(cpu, "none"):
        decoder = random_decoder(Scenario(architecture, weights, settings.adapter), cpu)
        engine = TorchEngine(decoder, settings)
        pack, seconds = shape.pack(architecture.vocabulary), []
        for step in range(STEPS):
            assert decoder.adapter is not None
            decoder.adapter.prepare(step, pack.names, pack.cu_seqlens)
            began = time.perf_counter()
            engine.backward(loss_sum(decoder, pack))
            engine.step(1e-4)
            engine.advance((step + 1) / STEPS)
            seconds.append(time.perf_counter() - began)
    trained = sum(parameter.numel() for parameter in decoder.trainable_parameters().values())
    return {"seconds": min(seconds[1:]), "bytes": float(meter.peak), "trained": float(trained)}
