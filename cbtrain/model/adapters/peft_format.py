"""The files of an adapter in the PEFT layout: ``adapter_config.json`` and ``adapter_model.safetensors``.

``peft``, vLLM and llama.cpp's converter read this layout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cbtrain.errors import UserError
from cbtrain.files import read_json_object
from cbtrain.model.config import LORA_TARGETS, LoraConfig
from cbtrain.text.faults import fault_of

PREFIX = "base_model.model."
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"

PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to initialize that leave the base's weights alone; after training they make no difference."""

NEUTRAL = {
    "use_qalora": False,
    "lora_bias": False,
    "bias": "none",
    "trainable_token_indices": None,
    "layer_replication": None,
    "target_parameters": None,
    "megatron_config": None,
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "use_bdlora": None,
    "monteclora_config": None,
    "kasa_config": None,
    "velora_config": None,
}
"""Settings of ``peft`` that change what an adapter computes, with the values at which they do nothing."""

USED = frozenset(
    "peft_type r lora_alpha lora_dropout target_modules exclude_modules layers_to_transform rank_pattern alpha_pattern "
    "use_rslora use_dora modules_to_save ensure_weight_tying init_lora_weights".split()
)

HARMLESS = frozenset(
    "task_type auto_mapping peft_version base_model_name_or_path revision inference_mode fan_in_fan_out layers_pattern "
    "megatron_core loftq_config eva_config corda_config lora_ga_config qalora_group_size runtime_config".split()
)
"""Settings of names, of the start of training, or of other settings that are refused; which linears are adapted is
checked tensor by tensor."""

KEY_OF_ADAPTER = re.compile(r"\.(?:lora_[A-Za-z_]+|modules_to_save)\.([^.]+)")
"""The part of a tensor's key after its kind: ``weight`` in files of ``peft``, an adapter's name in a running model."""

NAMES = {
    "rank": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "rslora": "use_rslora",
    "dora": "use_dora",
    "targets": "target_modules",
    "layers": "layers_to_transform",
}
"""The file's names of settings that have another one here."""

MERGE_FIRST = "Merge it with peft (merge_and_unload, save_pretrained) and name the merged folder as the model."


def peft_config(config: LoraConfig, *, base: str, tied: bool) -> str:
    """Return the text of ``adapter_config.json``."""
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": sorted(config.targets),
        "layers_to_transform": config.layers,
        "rank_pattern": config.rank_pattern,
        "alpha_pattern": config.alpha_pattern,
        "use_rslora": config.rslora,
        "use_dora": config.dora,
        "modules_to_save": config.modules_to_save or None,
        "ensure_weight_tying": bool(config.modules_to_save) and tied and config.ensure_weight_tying,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }
    return json.dumps(settings, indent=2) + "\n"


def read_adapter(folder: str | Path) -> tuple[LoraConfig, dict[str, Tensor], dict[str, str]]:
    """Return settings, tensors by their names in the file, and the file's metadata, as ``peft`` or cbtrain wrote them.

    Raises UserError if files are missing or damaged, and on features that are not supported, by name.
    """
    folder = Path(folder)
    config_file, weights_file = folder / CONFIG, folder / WEIGHTS
    try:
        settings = read_json_object(config_file, "Train or download it again.")
        with safe_open(weights_file, framework="pt") as file:
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except FileNotFoundError as error:
        if config_file.exists() and (folder / PICKLED).exists():
            hint = "Save it again with peft and safe_serialization=True."
            problem = f"its weights are a pickle, which is never opened; {WEIGHTS} is needed"
            raise UserError(problem, where=folder / PICKLED, hint=hint) from None
        missing = error.filename or weights_file
        raise UserError("adapter file is missing", where=missing, hint="Name an adapter folder.") from None
    except (SafetensorError, OSError) as error:
        hint = "Train or download it again."
        raise UserError(f"damaged safetensors file ({error})", where=weights_file, hint=hint) from None
    if not tensors:
        raise UserError("the adapter holds no tensors", where=weights_file, hint="Train it again.")
    config = _settings(settings, tensors, config_file)
    _refuse_odd_tensors(tensors, weights_file)
    return config, tensors, metadata


def _refuse_odd_tensors(tensors: dict[str, Tensor], where: Path) -> None:
    """Raise UserError on tensors that some way of saving or training leaves in an adapter, and say which it was."""
    for name, tensor in tensors.items():
        if not tensor.numel():
            problem = f"tensor {name!r} is empty, as ranks of ZeRO-3 hold it"
            hint = "Save it again with all ranks' parts gathered (stage3_gather_16bit_weights_on_model_save)."
            raise UserError(problem, where=where, hint=hint)
        named = KEY_OF_ADAPTER.search(name)
        if named and named[1] != "weight":
            problem = f"tensor {name!r} bears the adapter's name {named[1]!r}, as state_dict() gives it"
            raise UserError(problem, where=where, hint="Save it with save_pretrained of the peft model.")
        if ".lora_embedding_" in name or re.search(r"\.(?:embed_tokens|lm_head)\.lora_", name):
            problem = f"LoRA on {name.split('.lora_')[0].rpartition('.')[2]!r} is not supported ({name!r})"
            raise UserError(problem, where=where, hint=MERGE_FIRST)


def _settings(settings: dict[str, Any], tensors: Iterable[str], where: Path) -> LoraConfig:
    if settings.get("peft_type") != "LORA":
        kind = settings.get("peft_type")
        raise UserError(f"adapter type {kind!r} is not supported", where=where, hint="Only LORA is supported.")
    for key, neutral in NEUTRAL.items():
        if settings.get(key) not in (neutral, None, False, {}, []):
            raise UserError(
                f"{key}={settings[key]!r} is not supported", where=where, hint=f"Train with {key}={neutral!r}."
            )
    for key in sorted(settings.keys() - USED - HARMLESS - NEUTRAL.keys()):
        if settings[key] not in (None, False, {}, []):
            problem = f"{key}={settings[key]!r} is a setting that this cbtrain does not know"
            raise UserError(problem, where=where, hint=MERGE_FIRST)
    init = settings.get("init_lora_weights", True)
    if init not in PLAIN_STARTS:
        hint = "Convert it to plain LoRA with peft (save_pretrained with path_initial_model_for_weight_conversion)."
        raise UserError(f"init_lora_weights={init!r} changes the base's weights too", where=where, hint=hint)
    target_modules, modules_to_save = settings.get("target_modules"), settings.get("modules_to_save") or []
    for key, value in (("target_modules", target_modules), ("modules_to_save", modules_to_save)):
        lists = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
        if not lists and not (key == "target_modules" and isinstance(value, str)):
            raise UserError(f"{key}={value!r} is not a list of names", where=where, hint="Is this an adapter of peft?")
    modules_to_save = [name.rpartition(".")[2] for name in modules_to_save]
    try:
        return LoraConfig.model_validate(
            {
                "rank": settings.get("r"),
                "alpha": settings.get("lora_alpha"),
                "dropout": settings.get("lora_dropout", 0.0),
                "rslora": settings.get("use_rslora") or False,
                "dora": settings.get("use_dora") or False,
                "rank_pattern": settings.get("rank_pattern") or {},
                "alpha_pattern": settings.get("alpha_pattern") or {},
                "modules_to_save": sorted(set(modules_to_save)),
                "ensure_weight_tying": settings.get("ensure_weight_tying") or False,
                **_targets(settings, tensors),
            },
            strict=True,  # a text "false" is true in peft, and 1 is not a number of layers
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        path = ".".join((NAMES.get(key, key), *map(str, first["loc"][1:])))
        targets = f"LoRA is supported on the seven linears of a layer ({', '.join(LORA_TARGETS)})"
        hint = f"{targets}; embed_tokens and lm_head only as modules_to_save, trained as a whole."
        hint = hint if key in ("targets", "modules_to_save") else "Is this an adapter of peft, unchanged?"
        raise UserError(f"{path}: {fault_of(first)}", where=where, hint=hint) from None


def _targets(settings: dict[str, Any], tensors: Iterable[str]) -> dict[str, Any]:
    """Return the adapted linears: from the list in the settings, or from the tensors' names if that is a pattern."""
    target_modules, layers = settings.get("target_modules"), settings.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers or None
    excluded = settings.get("exclude_modules")
    if isinstance(target_modules, list) and set(target_modules) <= set(LORA_TARGETS) and not excluded:
        return {"targets": sorted(target_modules), "layers": layers}
    prefix, suffix = f"{PREFIX}model.", ".lora_A.weight"
    paths = [name.removeprefix(prefix).removesuffix(suffix) for name in tensors if name.endswith(suffix)]
    return {"targets": sorted(paths)}
