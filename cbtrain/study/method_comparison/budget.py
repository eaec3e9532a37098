"""As many trained numbers as LoRA of a given rank has: of methods whose size can be set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cbtrain.config.schema import StudyConfig
from cbtrain.model.architecture import Architecture
from cbtrain.model.config import HIGHEST_RANK, LoraConfig
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.study.entity_matching.settings import STAGE
from cbtrain.training.config import StageConfig
from cbtrain.training.planning.meta_model import meta_decoder
from cbtrain.training.planning.scenario import Scenario

SIZES = ("parameters", "rank")
"""Settings by which a method's size is set: a number of parameters, or a rank."""


@dataclass(frozen=True, slots=True)
class Size:
    """The ``settings`` of a stage (nested) that give a method its size, and the numbers that it ``trained`` then.
    ``set_by`` names the setting; None if the size cannot be set."""

    settings: dict[str, Any]
    trained: int
    set_by: str | None


def lora_size(architecture: Architecture, weights: WeightFormat, rank: int) -> int:
    """Return how many numbers LoRA of ``rank`` trains on all linears."""
    return _trained(architecture, weights, LoraConfig(rank=rank))


def matched_size(config: StudyConfig, architecture: Architecture, weights: WeightFormat, wanted: int) -> Size:
    """Return the size of the method of ``config`` that is nearest to ``wanted`` trained numbers from below; rank 1 if
    that is more. Raises UserError if the method does not fit the model."""
    stage: StageConfig = getattr(config, STAGE)
    settings, section = stage.adapter, "lora" if stage.method == "lora" else "options"
    key = next((name for name in SIZES if name in type(settings).model_fields), None)
    if key is None:
        return Size({}, _trained(architecture, weights, settings), None)
    value = wanted if key == "parameters" else _highest_rank(architecture, weights, settings, wanted)
    sized = settings.model_copy(update={key: value})
    return Size({section: {key: value}}, _trained(architecture, weights, sized), f"{section}.{key}={value}")


def _highest_rank(architecture: Architecture, weights: WeightFormat, settings: BaseModel, wanted: int) -> int:
    """Return the highest rank with at most ``wanted`` trained numbers, which rise with it."""
    low, high = 1, 2
    while high < HIGHEST_RANK and _trained(architecture, weights, settings.model_copy(update={"rank": high})) <= wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = _trained(architecture, weights, settings.model_copy(update={"rank": middle})) <= wanted
        low, high = (middle, high) if fits else (low, middle)
    return low


def _trained(architecture: Architecture, weights: WeightFormat, settings: BaseModel) -> int:
    decoder = meta_decoder(Scenario(architecture, weights, settings))
    return sum(parameter.numel() for parameter in decoder.trainable_parameters().values())
