"""What a user sets about models and adapters (torch-free)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cbtrain.errors import nearest

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Dtype = Literal["float32", "bfloat16", "float16"]


class ModelConfig(BaseModel):
    """Which base model, and how it is held in memory."""

    model_config = ConfigDict(extra="forbid")

    path: str | None = Field(None, description="model folder or hub id; none makes a tiny model from the corpus")
    dtype: Dtype = Field("float32", description="dtype of the frozen weights")
    device: str = Field("auto", description="'cpu', 'cuda', 'cuda:1'; 'auto' takes CUDA where there is one")


class LoraConfig(BaseModel):
    """LoRA sizes; the update is scaled by ``alpha / rank``."""

    model_config = ConfigDict(extra="forbid")

    rank: int = Field(16, ge=1)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] = Field(default_factory=lambda: list(LORA_TARGETS), min_length=1)

    @field_validator("targets")
    @classmethod
    def _known(cls, targets: list[str]) -> list[str]:
        for target in targets:
            if target not in LORA_TARGETS:
                raise ValueError(f"unknown target {target!r}. {nearest(target, LORA_TARGETS)}")
        return targets


class TinyModelConfig(BaseModel):
    """The small Llama-shaped decoder that a study makes where no model is named."""

    model_config = ConfigDict(extra="forbid")

    vocabulary: int = Field(4096, ge=300, description="entries of the byte-level BPE tokenizer")
    hidden: int = Field(192, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    kv_heads: int = Field(2, ge=1)
    intermediate: int = Field(512, ge=8)
    max_positions: int = Field(32_768, ge=256)

    @model_validator(mode="after")
    def _fits(self) -> TinyModelConfig:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden {self.hidden} is not a multiple of 2 × heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self
