"""Which rows there are: the systems, what each of them trains, and on which kind of device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

System = Literal["limit", "ours", "plain", "peft", "trl", "liger", "unsloth"]

PACKAGES: dict[System, tuple[str, ...]] = {
    "peft": ("transformers", "peft"),
    "trl": ("trl", "peft", "datasets"),
    "liger": ("liger_kernel", "transformers", "peft"),
    "unsloth": ("unsloth",),
}
"""What a system needs besides what cbtrain does, by the names under which it is imported."""

INSTALLED_AS = {"liger_kernel": "liger-kernel"}
"""Names of packages that are imported under another one."""

RANK, ALPHA, RATE, BETAS, DECAY, CLIP = 16, 16.0, 2e-4, (0.9, 0.95), 0.01, 1.0
"""LoRA on all seven linears, and AdamW at a constant rate: the same in every row."""

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "max_position_embeddings": 131_072,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
}
"""What all geometries share of ``config.json``; the families' own scaling of RoPE costs nothing, and is left out."""


def _sizes(vocabulary: int, hidden: int, layers: int, heads: int, kv_heads: int, inner: int) -> dict[str, int]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
    }


GEOMETRIES: dict[str, dict[str, Any]] = {
    "tiny": LLAMA | _sizes(1024, 64, 2, 4, 2, 128),
    "cpu": LLAMA | _sizes(32_000, 512, 8, 8, 4, 1408),
    "llama-8b": LLAMA | _sizes(128_256, 4096, 32, 32, 8, 14_336),  # Llama 3.1 8B
    "qwen-7b": LLAMA
    | _sizes(152_064, 3584, 28, 28, 4, 18_944)
    | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},  # Qwen 2.5 7B
    "mistral-7b": LLAMA
    | _sizes(32_768, 4096, 32, 32, 8, 14_336)
    | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None},  # Mistral 7B v0.3
}
"""``config.json`` of each geometry, by name."""


@dataclass(frozen=True, slots=True)
class Row:
    """What ``system`` trains under ``name``.

    ``compared`` rows share the base's files and the sessions, and their losses must be those of ``ours``. Others make
    random weights of ``geometry`` on the device. ``course`` is the length in tokens of the one document that is trained
    in place of sessions. ``most_bytes`` is the memory in which the row must stay.
    """

    name: str
    system: System
    geometry: str
    weights: str = "bf16"
    activation_checkpointing: str = "none"
    compared: bool = True
    course: int | None = None
    most_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of one kind of device, and their input.

    Sessions of ``shortest`` to ``longest`` tokens are packed into ``pack_tokens``; the first ``steps`` packs of two
    sessions are an optimizer step each, and the first step is not timed. ``vocabulary`` is the tokenizer's. No row
    begins after ``minutes``, or is given more than ``row_seconds``; losses agree within ``tolerance`` and gradient
    norms within ``norm_tolerance`` (both relative).
    """

    rows: tuple[Row, ...]
    shortest: int = 3000
    longest: int = 6000
    pack_tokens: int = 8192
    steps: int = 4
    vocabulary: int = 16_000
    rounds: int = 3
    minutes: float = 25
    row_seconds: float = 1200
    tolerance: float = 1e-4
    norm_tolerance: float = 1e-3

    def named(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


def _compared(systems: tuple[System, ...], geometry: str, weights: str) -> tuple[Row, ...]:
    return tuple(Row(system, system, geometry, weights) for system in systems)


ON_CPU: tuple[System, ...] = ("limit", "ours", "plain", "peft", "trl")
NF4_BYTES = 22_000_000_000
"""What a card of 24 GB leaves to training."""

PLANS = {
    "cpu": Plan(_compared(ON_CPU, "cpu", "fp32")),
    "cuda": Plan(
        (
            *_compared((*ON_CPU, "liger", "unsloth"), "llama-8b", "bf16"),
            Row("llama-nf4", "ours", "llama-8b", "nf4", "full", compared=False, most_bytes=NF4_BYTES),
            Row("qwen", "ours", "qwen-7b", compared=False),
            Row("mistral", "ours", "mistral-7b", compared=False),
            Row("llama-course", "ours", "llama-8b", "bf16", "full", compared=False, course=90_000),
        ),
        steps=6,
        rounds=1,
        minutes=8,
        row_seconds=175,
        tolerance=2e-2,  # bf16: eight bits of each factor
        norm_tolerance=0.1,
    ),
    "tiny": Plan(
        (
            *_compared(ON_CPU, "tiny", "fp32"),
            Row("course", "ours", "tiny", "fp32", "full", compared=False, course=700),
        ),
        shortest=450,
        longest=900,
        pack_tokens=1500,
        steps=3,
        vocabulary=600,
        rounds=1,
        minutes=3,
    ),
}
"""By device; ``tiny`` is for the benchmark's own test."""
