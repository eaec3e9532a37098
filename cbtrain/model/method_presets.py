"""Variants of LoRA by name: each stands for settings of a training stage (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cbtrain.settings import SettingsConflict


@dataclass(frozen=True, slots=True)
class Preset:
    """``lora`` and ``stage`` are the settings that it stands for, of the section ``lora`` and beside it; ``text`` is
    one line for lists."""

    text: str
    lora: Mapping[str, Any]
    stage: Mapping[str, Any]


PRESETS = {
    "lora-mlp": Preset(
        "LoRA on the three linears of the MLPs only", {"targets": ["gate_proj", "up_proj", "down_proj"]}, {}
    ),
    "rslora": Preset("scaled by alpha / √rank (Kalajdzievski 2023, arXiv 2312.03732)", {"rslora": True}, {}),
    "dora": Preset("magnitude and direction apart (Liu et al. 2024, arXiv 2402.09353)", {"dora": True}, {}),
    "lora-plus": Preset(
        "B learns 16 times as fast as A (Hayou et al. 2024, arXiv 2402.12354)", {}, {"lora_plus_ratio": 16.0}
    ),
}
"""What ``method`` may name beside the methods: the stage then has ``method: lora`` and what the name stands for."""


def without_preset(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a ``stage`` with what its preset stands for in place of it.

    Raises SettingsConflict if a setting is given another value than the preset's.
    """
    name = stage.get("method")
    preset = PRESETS.get(name) if isinstance(name, str) else None
    if preset is None:
        return dict(stage)
    lora = stage.get("lora", {})
    lora = lora.model_dump(exclude_unset=True) if isinstance(lora, BaseModel) else lora
    if not isinstance(lora, Mapping):
        return {**stage, "method": "lora"}  # a section of another kind is refused where it is checked
    for path, given, wanted in (("lora.", lora, preset.lora), ("", stage, preset.stage)):
        for key, value in wanted.items():
            if key in given and not _same(given[key], value):
                problem = f"method {name} sets {path}{key} to {_shown(value)}, not {_shown(given[key])}: leave one out"
                raise SettingsConflict(problem, "method", f"{path}{key}")
    return {**stage, **preset.stage, "method": "lora", "lora": {**lora, **preset.lora}}


def _same(given: Any, value: Any) -> bool:
    """Return whether two values of a setting mean the same: the order of a list means nothing."""
    if isinstance(given, list) and isinstance(value, list):
        return sorted(map(str, given)) == sorted(map(str, value))
    return bool(given == value)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) or value is None else f"{value}"
