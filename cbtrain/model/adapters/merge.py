"""An adapter added into its base: a model folder that needs no adapter any more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import cbtrain
from cbtrain.errors import UserError
from cbtrain.files import atomic_folder
from cbtrain.model.adapters.peft_format import PREFIX, WEIGHTS, read_adapter
from cbtrain.model.architecture import read_architecture
from cbtrain.model.weights import weight_files

KEPT = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*")
"""Files of the base that go along: config, tokenizer, template, licence."""

CARD = """---
base_model: {base}
tags: [cbtrain, lora, merged]
---

# {name}

`{base}` with the adapter `{adapter}` (LoRA, rank {rank}, alpha {alpha:g}) added into its weights, by cbtrain {version}.

> {notice}
{stops}"""

Progress = Callable[[int, int], None]
"""Called with the weight files done and their number."""


def merge(model: Path, adapter: Path, out: Path, *, base: str, progress: Progress = lambda done, of: None) -> int:
    """Write the folder ``model`` with ``adapter`` added to ``out``, atomically; returns how many matrices changed.

    ``W + alpha / rank · B A`` is computed in fp32 and rounded once, to the dtype of ``W``. Weight files are read and
    written one at a time, under their names. ``base`` is what the model card calls the model. Raises UserError where
    the adapter is not one of this base.
    """
    read_architecture(model)
    config, tensors = read_adapter(adapter)
    scale = config.alpha / config.rank
    files = weight_files(model)
    changed = 0
    with atomic_folder(out) as temporary:
        for pattern in KEPT:
            for file in model.glob(pattern):
                shutil.copyfile(file, temporary / file.name)
        for number, file in enumerate(files, 1):
            merged, count = _merged(file, tensors, scale, adapter)
            save_file(merged, temporary / file.name, metadata={"format": "pt"})
            changed += count
            progress(number, len(files))
        if tensors:
            problem = f"tensor {next(iter(tensors))!r} has no place in this model"
            raise UserError(problem, where=adapter / WEIGHTS, fix="Is this adapter for another base model?")
        stops = _bring_format(adapter, temporary)
        card = CARD.format(
            base=base,
            name=out.name,
            adapter=adapter.name,
            rank=config.rank,
            alpha=config.alpha,
            version=cbtrain.__version__,
            notice=cbtrain.NOTICE,
            stops=stops,
        )
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return changed


def _merged(file: Path, tensors: dict[str, Tensor], scale: float, adapter: Path) -> tuple[dict[str, Tensor], int]:
    """The tensors of ``file`` with those of the adapter added, which are taken out of ``tensors``."""
    merged, changed = {}, 0
    try:
        with safe_open(file, framework="pt") as shard:
            for key in shard.keys():  # noqa: SIM118 (safe_open is not a mapping)
                weight = shard.get_tensor(key)
                stem = PREFIX + key.removeprefix("model.").removesuffix(".weight")
                down, up = tensors.pop(f"{stem}.lora_A.weight", None), tensors.pop(f"{stem}.lora_B.weight", None)
                if down is not None and up is not None:
                    if (up.shape[0], down.shape[1]) != tuple(weight.shape):
                        problem = (
                            f"the update of {key!r} is {up.shape[0]} × {down.shape[1]}, it is {tuple(weight.shape)}"
                        )
                        raise UserError(problem, where=adapter / WEIGHTS, fix="Is this adapter for another base model?")
                    weight = (weight.float() + scale * (up.float() @ down.float())).to(weight.dtype)
                    if not bool(torch.isfinite(weight).all()):
                        raise UserError(f"{key!r} is not finite any more", where=adapter / WEIGHTS, fix="Train again.")
                    changed += 1
                merged[key] = weight.contiguous()
    except FileNotFoundError:
        raise UserError("shard is missing", where=file, fix="Download the model again.") from None
    except SafetensorError as error:
        raise UserError(f"damaged safetensors file ({error})", where=file, fix="Download it again.") from None
    return merged, changed


def _bring_format(adapter: Path, target: Path) -> str:
    """Put the chat template of the adapter in place of the base's; what the model card says of it."""
    template, facts = adapter / "chat_template.jinja", adapter / "chat_format.json"
    if not template.exists():
        return ""
    shutil.copyfile(template, target / template.name)
    config = target / "tokenizer_config.json"
    if config.exists():  # an old place for the template, which some readers look at first
        settings = json.loads(config.read_text(encoding="utf-8"))
        if settings.pop("chat_template", None):
            config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    stops = json.loads(facts.read_text(encoding="utf-8")).get("stop_strings", []) if facts.exists() else []
    text = "\nChats are laid out by `chat_template.jinja`, as in training."
    return text + (f" End answers at {', '.join(map(repr, stops))} too.\n" if stops else "\n")
