"""Model folders in and out: Hugging Face layout, safetensors only, never a pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.model.architecture import Architecture, read_architecture
from cbtrain.model.decoder import Decoder

HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_model(name: str) -> Path:
    """The folder of a model: ``name`` itself if it is one, else a snapshot of the hub repository ``name``.

    Raises UserError where neither exists, and says how to get access where the repository is gated.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    looks_like_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if not looks_like_hub_id:
        raise UserError("no such model folder", where=name, fix="Name a folder or a hub id such as 'org/model'.")
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=HUB_FILES))
    except GatedRepoError:
        fix = f"Accept its terms at https://huggingface.co/{name}, then run `hf auth login`."
        raise UserError("this hub repository is gated", where=name, fix=fix) from None
    except RepositoryNotFoundError:
        raise UserError("no such folder and no such hub repository", where=name, fix="Check the spelling.") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        fix = "Check the network, or download it elsewhere and name its folder."
        raise UserError(f"cannot be downloaded ({type(error).__name__})", where=name, fix=fix) from None


def load_decoder(name: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Decoder:
    """Load a Llama, Mistral, Qwen2 or Qwen3 ``…ForCausalLM`` from a folder or hub id.

    Built on the meta device; each tensor is read straight to its final dtype and device. Raises UserError on an
    unknown architecture, and on missing, surplus, damaged or wrongly shaped weights.
    """
    folder = resolve_model(name)
    architecture = read_architecture(folder)
    with torch.device("meta"):
        decoder = Decoder(architecture)
    wanted = dict(decoder.named_parameters())
    for key, tensor in _read_tensors(folder, dtype, device):
        if key == "lm_head.weight" and architecture.tied_embeddings:
            continue
        if key.endswith("rotary_emb.inv_freq"):  # written by old exporters, derived here
            continue
        if key not in wanted:
            raise UserError(f"unexpected tensor {key!r}", where=folder, fix="Are config.json and weights of one model?")
        if tensor.shape != wanted[key].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(wanted[key].shape)}"
            raise UserError(f"tensor {key!r} has shape {shapes}", where=folder, fix="Download the model again.")
        _assign(decoder, key, tensor)
        del wanted[key]
    if architecture.tied_embeddings:
        decoder.lm_head.weight = decoder.embed_tokens.weight
    if wanted:
        missing = f"{len(wanted)} tensors are missing, the first is {next(iter(wanted))!r}"
        raise UserError(missing, where=folder, fix="Download the model again.")
    from cbtrain.model.rope import inverse_frequencies

    decoder.frequencies = inverse_frequencies(architecture.rope, architecture.head_dim).to(device)
    return decoder.requires_grad_(False)


def save_decoder(decoder: Decoder, folder: Path, config: dict[str, Any]) -> None:
    """Write ``config.json`` and ``model.safetensors`` into an existing ``folder``, as ``transformers`` expects them."""
    tensors = {
        (key if key.startswith("lm_head.") else f"model.{key}"): tensor.detach().contiguous().cpu()
        for key, tensor in decoder.named_parameters()  # a tied head is listed once, as the embedding
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def llama_config(a: Architecture, *, bos_id: int | None, eos_id: int, pad_id: int | None) -> dict[str, Any]:
    """The ``config.json`` of a Llama-shaped architecture made here (default RoPE, no biases)."""
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


def _read_tensors(folder: Path, dtype: torch.dtype, device: str | torch.device) -> Iterator[tuple[str, Tensor]]:
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt", device=str(device)) as shard:
                for key in shard.keys():  # noqa: SIM118 (safe_open is not a mapping)
                    yield key.removeprefix("model."), shard.get_tensor(key).to(dtype)
        except FileNotFoundError:
            raise UserError("shard is missing", where=file, fix="Download the model again.") from None
        except SafetensorError as error:
            raise UserError(f"damaged safetensors file ({error})", where=file, fix="Download it again.") from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder. Raises UserError where there are none."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if single.exists():
        return [single]
    pickled = [p for p in os.listdir(folder) if p.endswith((".bin", ".pt", ".pth"))]
    reason = "holds pickled weights, which are never opened" if pickled else "holds no weights"
    raise UserError(f"{reason}; model.safetensors is needed", where=folder, fix="Convert it with transformers.")


def _assign(decoder: Decoder, key: str, tensor: Tensor) -> None:
    owner, _, leaf = key.rpartition(".")
    setattr(decoder.get_submodule(owner), leaf, torch.nn.Parameter(tensor, requires_grad=False))
