"""A Llama of random weights, as a benchmark wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_random_llama(folder: Path, sizes: dict[str, Any], *, theta: float = 10_000.0) -> None:
    """Make ``folder`` and write a model in fp32 to it. ``sizes``: the rest of its ``config.json``."""
    from cbtrain.model.architecture import parse_architecture
    from cbtrain.model.decoder import Decoder, initialize
    from cbtrain.model.weights.saving import save_decoder

    config = {**sizes, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
    config |= {"rms_norm_eps": 1e-5, "dtype": "float32"}
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    decoder = Decoder(parse_architecture(config, "benchmark"))
    initialize(decoder, 0)
    folder.mkdir(exist_ok=True)
    save_decoder(decoder, folder, config)
