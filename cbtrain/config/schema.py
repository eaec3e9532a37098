"""The settings of a whole study: the packages' configs in one, with checks that sections fit together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cbtrain.eval.config import EvaluationConfig
from cbtrain.model.config import ModelConfig, TinyModelConfig
from cbtrain.model.methods import method_named
from cbtrain.providers.config import ProvidersConfig
from cbtrain.providers.overrides import merge
from cbtrain.settings import SettingsConflict
from cbtrain.tokens.config import TokensConfig
from cbtrain.training.config import RuntimeConfig, StageConfig
from cbtrain.transcripts.config import SplitConfig, TranscriptsConfig

# A tiny model that has seen a few hundred thousand tokens wants larger steps than a real one. Only it has a budget: it
# is for a first look, and is to be ready in minutes.
TINY_DEFAULTS: dict[str, Any] = {
    # Small packs make many steps; a session that is longer than one stays whole in a pack of its own.
    "tokens": {"document_tokens": 32_768},
    "training": {"forgetting": {"tokens": 1000}},
    "base": {
        "method": "full",
        "learning_rate": 2e-3,
        "pack_tokens": 1024,
        "token_budget": 360_000,
        "max_epochs": 15,
        "validate_every": 40_000,
        "validation_tokens": 16_000,
    },
    "therapist": {
        "learning_rate": 5e-3,
        "lora": {"alpha": 32},
        "pack_tokens": 1024,
        "token_budget": 120_000,
        "max_epochs": 20,
        "validate_every": 30_000,
        "validation_tokens": 16_000,
    },
    "patient": {
        "learning_rate": 5e-3,
        "lora": {"alpha": 32},
        "pack_tokens": 1024,
        "token_budget": 80_000,
        "max_epochs": 20,
        "validate_every": 30_000,
        "validation_tokens": 16_000,
    },
}


class StudyConfig(BaseModel):
    """Everything that decides a study's result."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, ge=1, description="CPU threads; null: all cores")
    sharing: Literal["owner", "group"] = Field(
        "owner", description="who may read the files of a run: only its owner, or the owner's group too"
    )
    corpus: TranscriptsConfig = Field(default_factory=TranscriptsConfig)
    split: SplitConfig = Field(default_factory=SplitConfig)
    tokens: TokensConfig = Field(default_factory=TokensConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    tiny: TinyModelConfig = Field(default_factory=TinyModelConfig)
    training: RuntimeConfig = Field(default_factory=RuntimeConfig)
    base: StageConfig = Field(default_factory=StageConfig, description="how a tiny base model is trained")
    base_window: int = Field(
        512, ge=16, description="tokens to which most documents of the base are cut; one in four stays whole"
    )
    therapist: StageConfig = Field(default_factory=StageConfig)
    patient: StageConfig = Field(default_factory=StageConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    providers: ProvidersConfig = Field(default_factory=ProvidersConfig)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        model = values.get("model")
        if isinstance(model, dict) and model.get("path"):
            return values
        return merge(TINY_DEFAULTS, values)

    @model_validator(mode="after")
    def _sections_fit(self) -> StudyConfig:
        """Raise ValueError if one section rules out what another asks for; only of trained stages."""
        for speaker in self.training.speakers:
            method = method_named(getattr(self, speaker).method)
            if self.model.weights == "nf4" and (reason := method.cannot.get("nf4")):
                problem = f"{speaker}.method: {method.name} cannot train weights in nf4: {reason}; set model.weights"
                raise SettingsConflict(problem, f"{speaker}.method", "model.weights")
        for stage in ("base", "patient"):
            if (objective := getattr(self, stage).objective) != "sft":
                problem = f"{stage}.objective: {objective} compares answers of the therapist; set sft"
                raise SettingsConflict(problem, f"{stage}.objective")
        stages = [*(["base"] if self.model.path is None else []), *self.training.speakers]
        for stage in stages if self.training.engine == "deepspeed" else ():
            if beyond := _beyond_zero(stage, getattr(self, stage), self):
                key, problem, *others = beyond
                raise SettingsConflict(f"{key}: {problem}", key, "training.engine", *others)
        return self


def _beyond_zero(stage: str, settings: StageConfig, study: StudyConfig) -> tuple[str, ...] | None:
    """Return the setting with which DeepSpeed cannot train ``stage``, why and what to do, and the other settings that
    rule it out; None if it can."""
    if settings.optimizer not in ("adamw", "sgd"):
        hint = "take adamw or sgd, or set training.engine=torch"
        return f"{stage}.optimizer", f"{settings.optimizer} is not tested under ZeRO; {hint}"
    if settings.lora_plus_ratio:
        problem = "ZeRO takes one learning rate; leave it out, or set training.engine=torch"
        return f"{stage}.lora_plus_ratio", problem
    if settings.method == "sparse" and settings.options["selection"] != "none":
        problem = "places are exchanged by the torch engine only; set it to none, or training.engine=torch"
        return f"{stage}.options.selection", problem, f"{stage}.method"
    zero = "training.zero_stage"
    method = method_named(settings.method)
    if method.trains_base and study.model.weights == "bf16" and study.training.zero_stage < 2:
        problem = "bf16 weights are trained in ZeRO stages 2 and 3; set training.zero_stage=2"
        return f"{stage}.method", problem, "model.weights", zero
    if study.training.zero_stage < 3:
        return None
    if settings.objective != "sft":
        problem = f"{settings.objective} is not tested under ZeRO-3; set training.zero_stage to 1 or 2"
        return f"{stage}.objective", problem, zero
    less = "set training.zero_stage to 1 or 2"
    if reason := method.cannot.get("zero3"):
        return f"{stage}.method", f"{method.name} cannot be sharded by ZeRO-3: {reason}; {less}", zero
    if study.model.weights == "nf4":
        return "model.weights", f"ZeRO-3 cannot shard the packed weights of nf4; {less}, or take bf16", zero
    if settings.method == "lora" and settings.lora.dora:
        problem = f"its norm needs whole weights, which ZeRO-3 shards; {less}"
        return f"{stage}.lora.dora", problem, f"{stage}.method", zero
    if settings.method == "lora" and settings.lora.modules_to_save:
        return f"{stage}.lora.modules_to_save", f"not tested under ZeRO-3; {less}", f"{stage}.method", zero
    return None
