"""Adapters on disk in the PEFT layout: ``adapter_config.json`` and ``adapter_model.safetensors``.

``peft``, vLLM and llama.cpp's converter read this layout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.files import atomic_folder
from cbtrain.model.adapters.lora import inject, lora_modules
from cbtrain.model.config import LoraConfig
from cbtrain.model.decoder import Decoder

PREFIX = "base_model.model.model."
WEIGHTS = "adapter_model.safetensors"


def save_adapter(
    decoder: Decoder,
    folder: Path,
    config: LoraConfig,
    *,
    base: str,
    facts: dict[str, Any],
    beside: Mapping[str, str] | None = None,
) -> None:
    """Write the adapter of ``decoder`` atomically; ``facts`` (JSON) go into ``cbtrain.json`` beside it, and so do the
    texts of ``beside`` by file name."""
    tensors = {}
    for name, module in lora_modules(decoder).items():
        for leaf in ("lora_A", "lora_B"):
            tensors[f"{PREFIX}{name}.{leaf}.weight"] = getattr(module, leaf).detach().contiguous().cpu()
    peft_config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": sorted(config.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }
    with atomic_folder(folder) as temporary:
        (temporary / "adapter_config.json").write_text(json.dumps(peft_config, indent=2) + "\n")
        for name, text in (beside or {}).items():
            (temporary / name).write_text(text, encoding="utf-8")
        (temporary / "cbtrain.json").write_text(json.dumps(facts, indent=2) + "\n")
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})


def read_adapter(folder: str | Path) -> tuple[LoraConfig, dict[str, Tensor]]:
    """The settings and tensors that :func:`save_adapter` (or ``peft``) wrote, tensors by their names there.

    Raises UserError where files are missing or damaged, or the adapter uses a feature that is not supported (rsLoRA,
    DoRA, trained biases, whole modules).
    """
    folder = Path(folder)
    config_file, weights_file = folder / "adapter_config.json", folder / WEIGHTS
    try:
        facts = json.loads(config_file.read_text())
        tensors = load_file(weights_file)
    except FileNotFoundError as error:
        raise UserError(
            "adapter file is missing", where=error.filename or folder, fix="Name an adapter folder."
        ) from None
    except (json.JSONDecodeError, SafetensorError) as error:
        raise UserError(f"damaged adapter ({error})", where=folder, fix="Train or download it again.") from None
    return _read_config(facts, config_file), tensors


def load_adapter(decoder: Decoder, folder: str | Path) -> LoraConfig:
    """Inject and fill the adapter in ``folder``.

    Raises UserError as :func:`read_adapter` does, and where tensors do not fit the decoder.
    """
    weights_file = Path(folder) / WEIGHTS
    config, tensors = read_adapter(folder)
    inject(decoder, config)
    for name, module in lora_modules(decoder).items():
        for leaf in ("lora_A", "lora_B"):
            key = f"{PREFIX}{name}.{leaf}.weight"
            tensor, parameter = tensors.pop(key, None), getattr(module, leaf)
            if tensor is None or tensor.shape != parameter.shape:
                found = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
                problem = f"tensor {key!r} is {found}, {tuple(parameter.shape)} is needed"
                raise UserError(problem, where=weights_file, fix="Is this adapter for another base model?")
            parameter.data.copy_(tensor.to(torch.float32))
    if tensors:
        surplus = f"tensor {next(iter(tensors))!r} has no place in this model"
        raise UserError(surplus, where=weights_file, fix="Is this adapter for another base model?")
    return config


def _read_config(facts: Any, where: Path) -> LoraConfig:
    if not isinstance(facts, dict):
        raise UserError("not a mapping of settings", where=where, fix="Is this an adapter in PEFT format?")
    if facts.get("peft_type") != "LORA":
        raise UserError(f"adapter type {facts.get('peft_type')!r} is not supported", where=where, fix="Only LORA is.")
    for key, neutral in (("use_rslora", False), ("use_dora", False), ("bias", "none")):
        if facts.get(key, neutral) != neutral:
            raise UserError(f"{key}={facts[key]!r} is not supported", where=where, fix=f"Train with {key}={neutral!r}.")
    for key in ("modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform", "exclude_modules"):
        if facts.get(key):
            raise UserError(f"{key} is not supported", where=where, fix=f"Train without {key}.")
    targets = facts.get("target_modules")
    if not isinstance(targets, list):
        raise UserError(f"target_modules {targets!r} is not a list of names", where=where, fix="List the linears.")
    try:
        return LoraConfig.model_validate(
            {
                "rank": facts.get("r"),
                "alpha": facts.get("lora_alpha"),
                "dropout": facts.get("lora_dropout", 0.0),
                "targets": sorted(targets),
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        raise UserError(problem, where=where, fix="Is this an adapter of the seven linears?") from None
