"""What a user sets about training (torch-free)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cbtrain.model.config import FullConfig, LoraConfig
from cbtrain.tokens.config import Supervise


class TrainingConfig(BaseModel):
    """One training stage. Lengths are in tokens, and ``token_budget`` counts every token of every pack."""

    model_config = ConfigDict(extra="forbid")

    method: Literal["lora", "full"] = Field("lora", description="an adapter beside frozen weights, or all weights")
    lora: LoraConfig = Field(default_factory=LoraConfig)
    supervise: Supervise | None = Field(
        None,
        description="whose turns the loss counts: therapist, patient, both, or everything (with tokens.recipe=paper); "
        "none: the adapter's own speaker",
    )
    learning_rate: float = Field(2e-4, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = Field("cosine", description="decay after warm-up, to zero")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the token budget with a rising learning rate")
    weight_decay: float = Field(0.01, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0, description="largest gradient norm")
    pack_tokens: int = Field(
        8192, ge=16, description="tokens in a pack, and in a document (but see tokens.document_tokens)"
    )
    packs_per_step: int | None = Field(
        None, ge=1, description="packs whose gradients one optimizer step sums, all ranks together; none: one a rank"
    )
    token_budget: int = Field(400_000, ge=1, description="stop after this many tokens")
    max_epochs: int = Field(20, ge=1, description="stop after this many passes over the sessions")
    validate_every: int = Field(40_000, ge=1, description="tokens between validations")
    validation_tokens: int = Field(40_000, ge=1, description="tokens of the validation split to look at")
    patience: int = Field(3, ge=1, description="validations without improvement before stopping")
    seed: int = Field(0, ge=0)

    @property
    def adapter(self) -> LoraConfig | FullConfig:
        """The settings of the method."""
        return self.lora if self.method == "lora" else FullConfig()
