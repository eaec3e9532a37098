"""Loading and computing in each weight format, beside transformers: ``python launch/benchmark.py model [--layers N]``.

A decoder of the geometry of Llama 3.1 8B with few layers and random weights. Each row runs in a process of its own, so
that peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import command
from cbtrain.model.architecture import parse_architecture
from cbtrain.model.decoder import Decoder, initialize
from cbtrain.model.weights.loading import load_decoder
from cbtrain.model.weights.memory import weight_memory
from cbtrain.model.weights.saving import save_decoder

GEOMETRY: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 4096,  # the real one would hide the layers behind a gigabyte of embeddings
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
FORMATS = ("fp32", "bf16", "nf4")
TOKENS, REPEATS = 512, 5


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmark.py model", description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--row", nargs=3, metavar=("WHO", "FORMAT", "FOLDER"), help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.row:
        print(json.dumps(_row(*parsed.row)))
        return
    with tempfile.TemporaryDirectory() as folder:
        _make(Path(folder), parsed.layers)
        size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
        print(
            f"{parsed.layers} layers of Llama 3.1 8B's geometry, {size / 1e6:,.0f} MB in bf16 files of 250 MB or less"
        )
        print(f"{'':14} {'format':6} {'load':>8} {'peak':>9} {'a linear weight':>16} {'512 tokens':>11} {'1 token':>9}")
        for weight_format in FORMATS:
            for who in ("ours", "transformers"):
                measure = command("model", "--row", who, weight_format, folder)
                done = subprocess.run(measure, capture_output=True, text=True, check=True, cwd=folder)
                row = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"{who:14} {weight_format:6} {row['load']:6.1f} s {row['peak'] / 1e6:6,.0f} MB "
                    f"{row['each']:10.3f} bytes {row['many']:9.2f} s {1e3 * row['one']:6.0f} ms"
                )


def _make(folder: Path, layers: int) -> None:
    config = {**GEOMETRY, "num_hidden_layers": layers, "dtype": "bfloat16"}
    decoder = Decoder(parse_architecture(config, "benchmark"))
    initialize(decoder, 0)
    save_decoder(decoder.to(torch.bfloat16), folder, config, limit=250_000_000)


def _row(who: str, weight_format: str, folder: str) -> dict[str, float]:
    """Loading: seconds and peak memory beyond what the libraries take. Then the median seconds of a forward and a
    backward pass to the input over 512 tokens, and of a forward pass of one."""
    load = _load_ours if who == "ours" else _load_theirs
    torch.set_num_interop_threads(1)
    _bitsandbytes_is_there(weight_format)
    before = _memory("VmRSS")
    _reset_peak()
    started = time.perf_counter()
    forward, each = load(weight_format, folder)
    seconds, peak = time.perf_counter() - started, _memory("VmHWM") - before
    x = torch.randn(TOKENS, GEOMETRY["hidden_size"]).to(torch.bfloat16 if weight_format == "bf16" else torch.float32)
    many = _median(lambda: forward(x.requires_grad_()).float().square().mean().backward())
    with torch.no_grad():
        one_token = _median(lambda: forward(x[:1].detach()))
    return {"load": seconds, "peak": peak, "each": each, "many": many, "one": one_token}


def _load_ours(weight_format: str, folder: str) -> tuple[Callable[[torch.Tensor], torch.Tensor], float]:
    decoder = load_decoder(folder, weights=weight_format)
    memory = weight_memory(decoder)

    def forward(x: torch.Tensor) -> torch.Tensor:
        decoder.set_submodule("embed_tokens", _Given(x))
        return decoder(torch.zeros(len(x), dtype=torch.int64), torch.arange(len(x)), decoder.packed([0, len(x)]))

    return forward, memory.bytes_per_linear_parameter


def _load_theirs(weight_format: str, folder: str) -> tuple[Callable[[torch.Tensor], torch.Tensor], float]:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options: dict[str, Any] = {"dtype": torch.bfloat16 if weight_format == "bf16" else torch.float32}
    if weight_format == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="sdpa", trust_remote_code=False, **options
    ).requires_grad_(False)
    linears = [module for module in model.model.layers.modules() if isinstance(module, torch.nn.Linear)]
    count = sum(module.in_features * module.out_features for module in linears)
    weight_bytes = sum(_bytes(module.weight) for module in linears)

    def forward(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = model.model(inputs_embeds=x[None], use_cache=False).last_hidden_state
        return out

    return forward, weight_bytes / count


def _bytes(weight: Any) -> int:
    tensors = [weight]
    if hasattr(weight, "quant_state"):
        state = weight.quant_state
        tensors += [state.absmax, state.state2.absmax, state.offset]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Given(torch.nn.Module):
    """Embeddings that are given, so that a backward pass ends in them."""

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__()
        self.x = x

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.x


def _bitsandbytes_is_there(weight_format: str) -> None:
    if weight_format == "nf4":  # its import is no part of loading
        from cbtrain.model.linears.nf4 import quantize

        quantize(torch.ones(64, 64), double_quantization=True)
    import transformers.models.llama  # noqa: F401


def _median(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _memory(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(match[1]) * 1024 if match else 0


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")
