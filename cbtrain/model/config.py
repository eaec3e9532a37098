"""What a user sets about models and adapters (torch-free)."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cbtrain.errors import nearest
from cbtrain.model.path_patterns import check_patterns
from cbtrain.settings import SettingsConflict

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

ALL_LINEAR = "all-linear"
"""PEFT's word for all linears of every layer."""

HIGHEST_RANK = 65_536
"""More than any linear is wide: memory that a larger rank asks for is no machine's."""

Rank = Annotated[int, Field(le=HIGHEST_RANK)]

Weights = Literal["auto", "fp32", "bf16", "nf4"]

KernelName = Literal["rms_norm", "rope", "swiglu", "cross_entropy", "nf4"]
KernelChoice = Literal["auto", "off", "on"]


class ModelConfig(BaseModel):
    """Which base model, and how it is held in memory."""

    model_config = ConfigDict(extra="forbid")

    path: str | None = Field(None, description="model folder or hub id; null makes a tiny model from the corpus")
    weights: Weights = Field(
        "auto", description="format of the frozen weights: fp32, bf16, nf4; auto: bf16 on CUDA, fp32 elsewhere"
    )
    double_quantization: bool = Field(True, description="with nf4: keep the scales in eight bits too")
    compute: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="with nf4: dtype of activations and other weights; auto: bf16 on CUDA, fp32 elsewhere"
    )
    attention: Literal["auto", "flash-attn", "torch-varlen", "sdpa"] = Field(
        "auto", description="attention back-end; auto: the first of these that this machine supports"
    )
    kernels: KernelChoice | dict[KernelName, KernelChoice] = Field(
        "auto",
        description="Triton kernels in place of plain PyTorch: off; on: required; auto: on CUDA where they can run. "
        "One for all, or by name: {rope: off}",
    )
    device: str = Field("auto", description="'cpu', 'cuda', 'cuda:1'; 'auto': CUDA if there is one, else the CPU")

    @field_validator("kernels", mode="before")
    @classmethod
    def _words(cls, given: Any) -> Any:
        """Return ``on`` and ``off`` as words: YAML reads them as true and false."""
        if isinstance(given, dict):
            return {name: cls._words(choice) for name, choice in given.items()}
        return {True: "on", False: "off"}[given] if isinstance(given, bool) else given

    @model_validator(mode="after")
    def _computes(self) -> ModelConfig:
        if self.compute != "auto" and self.weights not in ("nf4", self.compute):
            problem = f"{self.weights} weights compute in their own dtype; compute is for nf4"
            raise SettingsConflict(problem, "weights", "compute")
        return self


def known_targets(targets: list[str]) -> list[str]:
    """Return ``targets`` by their own names, so that an adapter's file says which they are. Raises ValueError on one
    that is no linear."""
    if ALL_LINEAR in targets:
        return list(LORA_TARGETS)
    for target in targets:
        leaf = target.rpartition(".")[2]
        if leaf not in LORA_TARGETS:
            raise ValueError(f"unknown target {leaf!r}. {nearest(leaf, (*LORA_TARGETS, ALL_LINEAR))}")
    return targets


def one_word(targets: Any) -> Any:
    """Return ``targets`` as given, ``all-linear`` as a list, which PEFT takes as a word."""
    return [targets] if targets == ALL_LINEAR else targets


class LoraConfig(BaseModel):
    """LoRA on some linears; the update is scaled by ``alpha / rank``, with rsLoRA by ``alpha / sqrt(rank)``."""

    model_config = ConfigDict(extra="forbid")

    rank: int = Field(16, ge=1, le=HIGHEST_RANK)
    alpha: float = Field(16.0, gt=0, allow_inf_nan=False)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] = Field(
        default_factory=lambda: list(LORA_TARGETS),
        min_length=1,
        description="linears by name, in all layers (q_proj) or one (layers.3.mlp.up_proj); all-linear: the seven of "
        "every layer",
    )
    layers: list[int] | None = Field(None, min_length=1, description="adapt these layers only")
    rslora: bool = Field(False, description="scale by alpha / sqrt(rank)")
    dora: bool = Field(False, description="train direction and magnitude apart (DoRA)")
    rank_pattern: dict[str, Rank] = Field(default_factory=dict, description="other ranks, by the end of a path (regex)")
    alpha_pattern: dict[str, float] = Field(default_factory=dict, description="other alphas, in the same way")
    modules_to_save: list[Literal["embed_tokens", "lm_head"]] = Field(
        default_factory=list, description="modules that are trained as a whole, besides the adapter"
    )
    ensure_weight_tying: bool = Field(
        True, description="keep tied embeddings and head tied when one of them is trained"
    )

    @field_validator("targets", mode="before")
    @classmethod
    def _as_peft_takes_it(cls, given: Any) -> Any:
        return one_word(given)

    @field_validator("targets")
    @classmethod
    def _known(cls, targets: list[str]) -> list[str]:
        return known_targets(targets)

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _usable(cls, patterns: dict[str, float]) -> dict[str, float]:
        check_patterns(patterns)
        for pattern, value in patterns.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{value} for {pattern!r} is not a positive number")
        return patterns


class FullConfig(BaseModel):
    """All weights are trained; there is nothing to set."""

    model_config = ConfigDict(extra="forbid")


class TinyModelConfig(BaseModel):
    """The small Llama-shaped decoder that a study makes where no model is named."""

    model_config = ConfigDict(extra="forbid")

    vocabulary: int = Field(4096, ge=300, le=2**24, description="entries of the byte-level BPE tokenizer")
    hidden: int = Field(192, ge=8, le=2**20)
    layers: int = Field(4, ge=1, le=1024)
    heads: int = Field(4, ge=1, le=2**16)
    kv_heads: int = Field(2, ge=1, le=2**16)
    intermediate: int = Field(512, ge=8, le=2**24)
    max_positions: int = Field(32_768, ge=256, le=2**31 - 1)

    @model_validator(mode="after")
    def _fits(self) -> TinyModelConfig:
        if self.hidden % (2 * self.heads):
            problem = f"hidden {self.hidden} is not a multiple of 2 × heads {self.heads}"
            raise SettingsConflict(problem, "hidden", "heads")
        if self.heads % self.kv_heads:
            problem = f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}"
            raise SettingsConflict(problem, "heads", "kv_heads")
        return self
