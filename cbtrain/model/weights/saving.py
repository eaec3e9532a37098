"""Model folders out: Hugging Face layout, in files of bounded size, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.model.architecture import Architecture
from cbtrain.model.decoder import Decoder

SHARD_BYTES = 5_000_000_000
"""The largest weight file, as ``transformers`` cuts them: some file systems and uploads know limits."""


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write ``tensors`` to ``path`` (safetensors). Raises UserError if there are none or one is empty or not
    finite, and if they cannot be written, a full disk for instance."""
    if not tensors:
        raise UserError("there are no tensors to save", where=path.name, hint="Train something first.")
    for key, tensor in tensors.items():
        if not tensor.numel() or not bool(torch.isfinite(tensor).all()):
            problem = "is empty" if not tensor.numel() else "holds NaN or infinity"
            raise UserError(f"tensor {key!r} {problem} and is not saved", where=path.name, hint="Train again.")
    whole = {key: tensor.detach().contiguous().cpu() for key, tensor in tensors.items()}
    try:
        save_file(whole, path, metadata={"format": "pt", **(metadata or {})})
        _sort_header(path)
    except (OSError, SafetensorError) as error:
        full = "No space left on device" in str(error)
        reason = "the disk is full" if full else str(error)
        hint = "Free some space or choose another place."
        raise UserError(f"weights cannot be written: {reason}", where=path.parent.parent, hint=hint) from None


def _sort_header(path: Path) -> None:
    """Put the file's header in one order: the library writes metadata in another one each time, and files of equal
    content should be equal."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        metadata = dict(sorted(header.pop("__metadata__", {}).items()))
        text = json.dumps({"__metadata__": metadata, **header}, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


class ShardWriter:
    """Writes tensors as they come into ``model-0000i-of-0000n.safetensors`` files of at most ``limit`` bytes (one
    larger tensor apart), and their index; one file is ``model.safetensors``. No more than one file is in memory."""

    def __init__(self, folder: Path, limit: int = SHARD_BYTES, metadata: Mapping[str, str] | None = None) -> None:
        self.folder, self.limit, self.metadata = folder, limit, metadata
        self._waiting: dict[str, Tensor] = {}
        self._bytes = self._total = 0
        self._shards: list[list[str]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if self._waiting and self._bytes + size > self.limit:
            self._flush()
        self._waiting[name] = tensor
        self._bytes += size
        self._total += size

    def close(self) -> None:
        """Write what is left, give the files their names, write the index."""
        self._flush()
        number = len(self._shards)
        if number == 1:
            os.replace(self._part(0), self.folder / "model.safetensors")
            return
        places: dict[str, str] = {}
        for i, names in enumerate(self._shards):
            final = f"model-{i + 1:05d}-of-{number:05d}.safetensors"
            os.replace(self._part(i), self.folder / final)
            places |= dict.fromkeys(names, final)
        index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(places.items()))}
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")

    def _flush(self) -> None:
        save_tensors(self._waiting, self._part(len(self._shards)), self.metadata)
        self._shards.append(list(self._waiting))
        self._waiting, self._bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.safetensors"


def save_decoder(decoder: Decoder, folder: Path, config: dict[str, Any], *, limit: int = SHARD_BYTES) -> None:
    """Write ``config.json`` and the weights into an existing ``folder``, as ``transformers`` expects them."""
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    writer = ShardWriter(folder, limit)
    for key, tensor in decoder.named_parameters():  # a tied head is listed once, as the embedding
        writer.add(file_name(key), tensor)
    writer.close()


def file_name(name: str) -> str:
    """Return a parameter's name in Hugging Face files."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def llama_config(a: Architecture, *, bos_id: int | None, eos_id: int, pad_id: int | None) -> dict[str, Any]:
    """Return the ``config.json`` of a Llama-shaped architecture made here (default RoPE, no biases)."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": a.vocabulary,
        "hidden_size": a.hidden,
        "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.kv_heads,
        "head_dim": a.head_dim,
        "intermediate_size": a.intermediate,
        "max_position_embeddings": a.max_positions,
        "rms_norm_eps": a.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": a.rope.theta},
        "tie_word_embeddings": a.tied_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "dtype": "float32",
    }
