"""What a user sets about methods other than LoRA, under ``options`` (torch-free)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cbtrain.model.config import HIGHEST_RANK, LORA_TARGETS, known_targets


class HypLoraConfig(BaseModel):
    """HypLoRA (Yang et al. 2025, arXiv 2410.04010): LoRA between points of a hyperboloid."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rank: int = Field(32, ge=1, le=HIGHEST_RANK)
    alpha: float = Field(64.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] = Field(
        default_factory=lambda: list(LORA_TARGETS), min_length=1, description="linears by name, as those of lora"
    )
    layers: list[int] | None = Field(None, min_length=1, description="adapt these layers only")
    curvature: float = Field(1.0, gt=1e-5, description="K, at which a learnt curvature begins")
    learn_curvature: bool = Field(True, description="train K, one for each linear")
    norm_scale: bool = Field(True, description="divide inputs by a number that is trained, and begins at √in_features")
    reproduce: Literal["paper", "code"] = Field(
        "paper", description="code: the map of the authors' program, another one but at K = 1 (docs/methods.md)"
    )

    @field_validator("targets")
    @classmethod
    def _known(cls, targets: list[str]) -> list[str]:
        return known_targets(targets)


class HalfConfig(BaseModel):
    """HFT (Hui et al. 2025, arXiv 2404.18466): full tuning of one half of the matrices, drawn for each round."""

    model_config = ConfigDict(extra="forbid")

    round: int = Field(0, ge=0, description="number of the round: the next stage or task has another half")
    seed: int | None = Field(None, ge=0, description="of the draw; null: the stage's seed")
