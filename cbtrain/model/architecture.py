"""The architecture of a decoder: what a Hugging Face ``config.json`` says, checked and named once.

``LlamaForCausalLM``, ``MistralForCausalLM``, ``Qwen2ForCausalLM`` and ``Qwen3ForCausalLM`` are one architecture that
differs in settings (QKV bias, norms of queries and keys, sliding window, tied embeddings, RoPE scaling), so they are
one dataclass here and one class in ``decoder.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError, nearest
from cbtrain.files import read_json_object
from cbtrain.model.config_keys import refuse_other_computation
from cbtrain.model.config_values import require_sound_values
from cbtrain.model.rope_keys import Rope, read_rope

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
QWEN = ("Qwen2ForCausalLM", "Qwen3ForCausalLM")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Sizes and switches of one decoder. Fields have the literature's names, not the file's."""

    name: str
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    max_positions: int
    norm_eps: float
    rope: Rope
    tied_embeddings: bool
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    sliding_window: int | None
    eos_ids: tuple[int, ...]
    qk_norm: bool = False

    @property
    def context(self) -> int:
        """Longest context in tokens: the config's positions, or more if its RoPE scaling extends them."""
        if self.rope.type == "default":
            return self.max_positions
        return max(self.max_positions, int(self.rope.factor * self.rope.original_max_positions))


def parse_architecture(config: dict[str, Any], where: object) -> Architecture:
    """Return the architecture that a parsed ``config.json`` describes.

    Raises UserError on an unknown architecture, RoPE type or activation, on missing keys, on keys that contradict each
    other or ask for another computation, on values out of range, and on quantized weights.
    """
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else str(named or "(none named)")
    if name not in ARCHITECTURES:
        raise UserError(
            f"architecture {name!r} is not supported",
            where=where,
            hint=f"{nearest(name, ARCHITECTURES)} Supported: {', '.join(ARCHITECTURES)}.",
        )
    require_sound_values(config, where)
    refuse_other_computation(config, name, where)
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise UserError(f"activation {activation!r} is not supported", where=where, hint="Only 'silu' is supported.")
    try:
        heads = int(config["num_attention_heads"])
        hidden = int(config["hidden_size"])
        architecture = Architecture(
            name=name,
            vocabulary=int(config["vocab_size"]),
            hidden=hidden,
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(_given(config, "num_key_value_heads", name) or heads),
            head_dim=int(_given(config, "head_dim", name) or hidden // heads),
            intermediate=int(config["intermediate_size"]),
            max_positions=int(_given(config, "max_position_embeddings", name)),
            norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            rope=read_rope(config, where),
            tied_embeddings=_switch(config, "tie_word_embeddings"),
            qkv_bias=_switch(config, "attention_bias") or name == "Qwen2ForCausalLM",
            out_bias=_switch(config, "attention_bias") and name != "Qwen2ForCausalLM",
            mlp_bias=_switch(config, "mlp_bias"),
            sliding_window=_sliding_window(config, name, where),
            eos_ids=_eos_ids(config),
            qk_norm=name == "Qwen3ForCausalLM",
        )
        _require_sound(architecture, where)
        return architecture
    except KeyError as error:
        raise UserError(
            f"key {error.args[0]!r} is missing", where=where, hint="Is this a model's config.json?"
        ) from None
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"a value of a wrong kind ({error})", where=where, hint="Is this a model's config.json?"
        ) from None


DEFAULTS: dict[str, dict[str, int]] = {
    "LlamaForCausalLM": {"max_position_embeddings": 2048},
    "MistralForCausalLM": {"num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096},
    "Qwen2ForCausalLM": {"num_key_value_heads": 32, "max_position_embeddings": 32_768},
    "Qwen3ForCausalLM": {"num_key_value_heads": 32, "max_position_embeddings": 32_768, "head_dim": 128},
}
"""Defaults of ``transformers`` for absent keys, so that old, short files mean the same here."""


def _given(config: dict[str, Any], key: str, name: str) -> Any:
    return config[key] if key in config else DEFAULTS[name].get(key)


def _switch(config: dict[str, Any], key: str) -> bool:
    value = config.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, not true or false")
    return value


def _require_sound(a: Architecture, where: object) -> None:
    sizes = (a.vocabulary, a.hidden, a.layers, a.heads, a.kv_heads, a.head_dim, a.intermediate)
    hint = "Is this a model's config.json, unchanged?"
    if min(sizes) < 1:
        raise UserError(f"a size of {min(sizes)}", where=where, hint=hint)
    if a.heads % a.kv_heads:
        problem = f"{a.heads} attention heads cannot share {a.kv_heads} heads of keys and values"
        raise UserError(problem, where=where, hint=hint)
    if not a.rope.theta > 1 or not a.rope.factor >= 1 or not math.isfinite(a.rope.theta * a.rope.factor):
        raise UserError(f"RoPE with theta {a.rope.theta:g} and factor {a.rope.factor:g}", where=where, hint=hint)
    if a.head_dim % 2:
        raise UserError(f"RoPE needs heads of an even size, these have {a.head_dim}", where=where, hint=hint)


def read_architecture(folder: Path) -> Architecture:
    """Return :func:`parse_architecture` of ``folder/config.json``."""
    return parse_architecture(read_model_config(folder), folder / "config.json")


def read_model_config(folder: Path) -> dict[str, Any]:
    """Return the parsed ``config.json`` of a model folder. Raises UserError if it is missing or malformed."""
    try:
        return read_json_object(folder / "config.json", "Download the model again.")
    except FileNotFoundError:
        raise UserError(
            "no config.json here", where=folder, hint="Name a Hugging Face model folder or hub id."
        ) from None


def _sliding_window(config: dict[str, Any], name: str, where: object) -> int | None:
    window = _given(config, "sliding_window", name)
    if name in QWEN:
        # Qwen files carry a window that only counts with `use_sliding_window`, and then only in some layers.
        if not config.get("use_sliding_window", False):
            return None
        raise UserError(
            f"{name} with use_sliding_window is not supported", where=where, hint="Set use_sliding_window to false."
        )
    return int(window) if window and name == "MistralForCausalLM" else None


def _eos_ids(config: dict[str, Any]) -> tuple[int, ...]:
    eos = config.get("eos_token_id")
    if eos is None:
        return ()
    return tuple(map(int, eos)) if isinstance(eos, list) else (int(eos),)
