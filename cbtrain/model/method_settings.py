"""What a user sets about methods other than LoRA, under ``options`` (torch-free)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cbtrain.model.config import HIGHEST_RANK, LORA_TARGETS, known_targets, one_word


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

    @field_validator("targets", mode="before")
    @classmethod
    def _one_word(cls, given: Any) -> Any:
        return one_word(given)

    @field_validator("targets")
    @classmethod
    def _known(cls, targets: list[str]) -> list[str]:
        return known_targets(targets)


class HalfConfig(BaseModel):
    """HFT (Hui et al. 2025, arXiv 2404.18466): full tuning of one half of the matrices, drawn for each round."""

    model_config = ConfigDict(extra="forbid")

    round: int = Field(0, ge=0, description="number of the round: the next stage or task has another half")
    seed: int | None = Field(None, ge=0, description="of the draw; null: the stage's seed")


Fault = Literal["seeding", "age", "frozen-age", "ranks", "resume", "rounding"]
"""What the program of SpIEL's authors does otherwise than it is meant (docs/methods.md), by name."""


OF_SELECTION = ("share", "policy", "every", "collect")
"""Settings of :class:`SparseConfig` that only a selection heeds."""


class SparseConfig(BaseModel):
    """Sparse deltas: of each linear a few weights are trained, in place; with a selection they are drawn anew (SpIEL,
    Ansell et al. 2024, arXiv 2401.16405)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rank: int = Field(16, ge=1, le=HIGHEST_RANK, description="train as many weights as LoRA of this rank would")
    parameters: int | None = Field(None, ge=1, description="train so many weights in all, whatever the rank")
    targets: list[str] = Field(
        default_factory=lambda: list(LORA_TARGETS), min_length=1, description="linears by name, as those of lora"
    )
    layers: list[int] | None = Field(None, min_length=1, description="adapt these layers only")
    selection: Literal["none", "accumulated-gradients", "momentum"] = Field(
        "none", description="none: the weights are drawn once; else now and then some are exchanged for others"
    )
    share: float = Field(0.2, gt=0, le=1, description="share of the weights that a selection exchanges, at the start")
    policy: Literal["linear", "cosine"] = Field("linear", description="how the share falls to zero")
    every: int = Field(20, ge=2, description="updates from one selection to the next (S)")
    collect: int = Field(5, ge=1, description="updates after which the first selection comes (γ)")
    reproduce: Literal["none", "spiel"] = Field("none", description="spiel: all faults of the authors' program")
    faults: list[Fault] = Field(default_factory=list, description="some of them (docs/methods.md)")

    @field_validator("targets", mode="before")
    @classmethod
    def _one_word(cls, given: Any) -> Any:
        return one_word(given)

    @field_validator("targets")
    @classmethod
    def _known(cls, targets: list[str]) -> list[str]:
        return known_targets(targets)

    @model_validator(mode="after")
    def _fits(self) -> SparseConfig:
        if self.collect >= self.every:
            raise ValueError(f"collect {self.collect} must be less than every {self.every}")
        plain = type(self).model_fields
        given = [name for name in OF_SELECTION if getattr(self, name) != plain[name].default]
        if self.selection == "none" and given:
            raise ValueError(f"{given[0]} needs a selection, and selection is none")
        if self.parameters is not None and self.rank != plain["rank"].default:
            raise ValueError("rank and parameters both set the number of weights: leave one out")
        return self

    def has(self, fault: Fault) -> bool:
        """Return whether the authors' ``fault`` is wanted."""
        return self.reproduce == "spiel" or fault in self.faults
