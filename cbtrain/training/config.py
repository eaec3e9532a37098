"""What a user sets about training (torch-free)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cbtrain.errors import nearest
from cbtrain.model.config import LoraConfig
from cbtrain.model.method_presets import PRESETS, without_preset
from cbtrain.model.methods import LORA, OURS, known_methods, method_named
from cbtrain.settings import SettingsConflict, renamed
from cbtrain.text.faults import fault_of
from cbtrain.tokens.config import Supervise
from cbtrain.transcripts.types import Role

Optimizer = Literal["adamw", "adamw8bit", "paged_adamw", "paged_adamw8bit", "sgd"]
ActivationCheckpointing = Literal["auto", "none", "mlp", "selective", "full"]

VALIDATIONS_PER_EPOCH = 10
"""If ``validate_every`` is not set."""


class PreferenceConfig(BaseModel):
    """The loss of pairs of answers (docs/preferences.md)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    beta: float = Field(
        0.1,
        gt=0,
        description="orpo: weight of the odds ratio beside the likelihood; dpo: how close to stay to the base",
    )
    loss: Literal["sigmoid", "ipo"] = Field("sigmoid", description="dpo: its own loss, or that of IPO")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="share of pairs that are taken to be labelled wrongly"
    )
    sft_weight: float = Field(0.0, ge=0, description="dpo: weight of the chosen answers' likelihood beside its loss")
    likelihood: Literal["answer", "text"] = Field(
        "answer", description="tokens whose likelihood counts beside the pair: of the answer, or of the prompt too"
    )
    reference: Literal["cached", "live"] = Field(
        "cached", description="dpo: the base's log-probabilities, computed once before training, or in each step"
    )


class StageConfig(BaseModel):
    """One training stage. Lengths are in tokens, and ``token_budget`` counts every token of every pack.

    It ends after ``max_epochs`` or ``token_budget``, whichever is first, or when validation stops improving.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    method: str = Field(
        "lora",
        description=f"how weights are trained: {', '.join(method.name for method in OURS)}, or a method of another "
        f"package; {', '.join(PRESETS)} stand for settings of lora (docs/methods.md)",
    )
    lora: LoraConfig = Field(default_factory=LoraConfig)
    options: dict[str, Any] = Field(default_factory=dict, description="settings of a method that is not lora")
    objective: Literal["sft", "orpo", "dpo"] = Field(
        "sft", description="sft: the likelihood of sessions; orpo, dpo: pairs of a chosen and a rejected answer"
    )
    preference: PreferenceConfig = Field(default_factory=PreferenceConfig, description="settings of orpo and dpo")
    supervise: Supervise | None = Field(
        None,
        description="whose turns the loss counts: therapist, patient, both, or everything (with tokens.recipe=paper); "
        "null: the adapter's own speaker",
    )
    optimizer: Optimizer = Field(
        "adamw",
        description="8bit: moments in eight bits; paged: moments that may leave the GPU (both bitsandbytes)",
    )
    learning_rate: float = Field(2e-4, gt=0)
    lora_plus_ratio: float | None = Field(
        None, ge=1, description="LoRA+: learning rate of the B matrices over that of the rest; null: the same"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field("cosine", description="decay after warm-up, to zero")
    warmup: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of the run (to max_epochs or token_budget) in which the learning rate rises",
    )
    weight_decay: float = Field(0.01, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0, description="largest gradient norm")
    activation_checkpointing: ActivationCheckpointing = Field(
        "auto",
        validation_alias=renamed("activation_checkpointing", "recompute"),
        description="what the backward pass computes again instead of keeping: nothing; mlp: gate and up; selective: "
        "all but attention; full: whole layers; auto: in each layer as little as memory allows",
    )
    pack_tokens: int = Field(
        8192, ge=16, description="tokens in a pack, and in a document (but see tokens.document_tokens)"
    )
    packs_per_step: int | None = Field(
        None, ge=1, description="packs whose gradients one optimizer step sums, all ranks together; null: one a rank"
    )
    tokens_per_step: int | None = Field(
        None, ge=16, description="size of an optimizer step in tokens, instead of packs_per_step"
    )
    max_epochs: int = Field(1, ge=1, description="stop after this many passes over the sessions")
    token_budget: int | None = Field(
        None,
        ge=1,
        description="stop after this many tokens, and draw sessions until they have as many; null: take every session",
    )
    validate_every: int | None = Field(None, ge=1, description="tokens between validations; null: a tenth of an epoch")
    validation_tokens: int = Field(40_000, ge=1, description="tokens of the validation part to measure")
    patience: int = Field(3, ge=1, description="validations without improvement after which training stops")
    seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _without_preset(cls, given: Any) -> Any:
        return without_preset(given) if isinstance(given, dict) else given

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in known_methods():
            raise ValueError(f"unknown method {name!r}. {nearest(name, (*known_methods(), *PRESETS))}")
        return name

    @model_validator(mode="after")
    def _options_of_method(self) -> StageConfig:
        """Complete and check ``options`` by the settings of the method."""
        if self.method == LORA.name:
            if self.options:
                raise SettingsConflict("the settings of method lora are lora.*", "options", "method")
            return self
        settings = method_named(self.method).settings
        try:
            self.options = settings.model_validate(self.options).model_dump(mode="json")
        except ValidationError as error:
            fault, *_ = error.errors()
            key, text = ".".join(("options", *map(str, fault["loc"]))), fault_of(fault)
            if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
                text = f"{text}. {nearest(str(fault['loc'][0]), settings.model_fields)}"
            raise SettingsConflict(text, key, "method", at=key) from None
        return self

    @model_validator(mode="after")
    def _objective_fits(self) -> StageConfig:
        """Refuse settings that the objective does not use."""
        set_here = self.preference.model_dump(exclude_defaults=True)
        unused = {
            "sft": set(PreferenceConfig.model_fields),
            "orpo": {"loss", "sft_weight", "reference"},
            "dpo": {"likelihood"} if not self.preference.sft_weight else set(),
        }[self.objective]
        for name in set_here.keys() & unused:
            problem = f"preference.{name} has no effect with objective {self.objective}: leave it out"
            raise SettingsConflict(problem, f"preference.{name}", "objective")
        if self.preference.loss == "ipo" and self.preference.label_smoothing:
            problem = "loss ipo has no label_smoothing: leave it out"
            raise SettingsConflict(problem, "preference.label_smoothing", "preference.loss")
        if self.objective != "sft" and self.supervise not in (None, "therapist"):
            problem = f"{self.objective} compares answers of the therapist: leave supervise out"
            raise SettingsConflict(problem, "supervise", "objective")
        if self.preference.reference == "live" and method_named(self.method).trains_base:
            problem = "method {} changes the base itself, which cannot answer in each step: set reference=cached"
            raise SettingsConflict(problem.format(self.method), "preference.reference", "method")
        return self

    @model_validator(mode="after")
    def _fits(self) -> StageConfig:
        if self.packs_per_step and self.tokens_per_step:
            problem = "packs_per_step and tokens_per_step both set the size of a step: leave one out"
            raise SettingsConflict(problem, "packs_per_step", "tokens_per_step")
        if self.tokens_per_step and self.tokens_per_step < self.pack_tokens:
            problem = f"tokens_per_step {self.tokens_per_step} is less than one pack ({self.pack_tokens})"
            raise SettingsConflict(problem, "tokens_per_step", "pack_tokens")
        if self.method == "sparse" and self.options["selection"] != "none" and self.optimizer != "adamw":
            problem = "options.selection brings an optimizer of its own: leave optimizer out, or set selection to none"
            raise SettingsConflict(problem, "optimizer", "options.selection", "method")
        if self.lora_plus_ratio and self.method != LORA.name:
            raise SettingsConflict("lora_plus_ratio needs method lora", "lora_plus_ratio", "method")
        if self.lora_plus_ratio and self.optimizer == "sgd":
            problem = "lora_plus_ratio needs one of the AdamW optimizers"
            raise SettingsConflict(problem, "lora_plus_ratio", "optimizer")
        return self

    def accumulates(self, world: int, pack_tokens: int | None = None) -> bool:
        """Return whether an optimizer step has several packs for each of ``world`` ranks, with packs of ``pack_tokens``
        (default: as configured)."""
        packs = self.packs_per_step or world
        if self.tokens_per_step:
            packs = round(self.tokens_per_step / (pack_tokens or self.pack_tokens))
        return packs > world

    def tokens_in_all(self, tokens_per_epoch: int) -> int:
        """Return the tokens after which training ends, if validation does not end it before."""
        whole = self.max_epochs * tokens_per_epoch
        return whole if self.token_budget is None else min(self.token_budget, whole)

    def tokens_between_validations(self, tokens_per_epoch: int) -> int:
        return self.validate_every or max(1, tokens_per_epoch // VALIDATIONS_PER_EPOCH)

    @property
    def fixed_level(self) -> ActivationCheckpointing:
        """What every layer computes again as far as it is set: with ``auto`` nothing, until memory has chosen."""
        return "none" if self.activation_checkpointing == "auto" else self.activation_checkpointing

    @property
    def adapter(self) -> BaseModel:
        """Settings of the method, by which it is known (:func:`cbtrain.model.methods.method_of`)."""
        return self.lora if self.method == LORA.name else method_named(self.method).settings(**self.options)


class CheckpointConfig(BaseModel):
    """When a training stage writes checkpoints, and which of them it keeps."""

    model_config = ConfigDict(extra="forbid")

    every_steps: int | None = Field(None, ge=1, description="optimizer steps between checkpoints")
    every_minutes: float | None = Field(10.0, gt=0, description="minutes between checkpoints")
    keep_last: int = Field(2, ge=1, description="how many of the newest checkpoints to keep")
    keep_best: int = Field(1, ge=1, description="how many checkpoints with the lowest validation loss to keep too")


class ForgettingConfig(BaseModel):
    """What is measured after training, base against tuned, on two texts that were not trained: a general one, and the
    other speaker's turns."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(True, description="measure what is forgotten: perplexity of both models, and KL divergence")
    text: str | None = Field(
        None, description="a UTF-8 file of general text, in the model's language; null: English passages that ship"
    )
    tokens: int = Field(4000, ge=1, description="tokens of each text that are measured, at most")


class RuntimeConfig(BaseModel):
    """How training runs on this machine: nothing here should change what is learnt."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    speakers: list[Role] = Field(
        ["therapist", "patient"],
        min_length=1,
        description="whose adapters are trained; a patient behind an API needs none",
    )
    engine: Literal["torch", "deepspeed"] = Field(
        "torch", description="torch: one process, or ranks that sum gradients; deepspeed: ZeRO"
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        1, description="with deepspeed: shard optimizer states (1), gradients too (2), all weights too (3)"
    )
    checkpoints: CheckpointConfig = Field(default_factory=CheckpointConfig)
    forgetting: ForgettingConfig = Field(default_factory=ForgettingConfig)
    resume: Literal["auto", "never"] = Field(
        "auto", description="auto: an unfinished run in the folder continues from its newest complete checkpoint"
    )
    memory_limit: float | None = Field(
        None, gt=0, description="GB (1e9 bytes) that training may take on a device; null: what is free"
    )
    savings_off: list[Literal["fused", "folded", "pruned", "logits"]] = Field(
        default_factory=list, description="savings of time and memory to do without, to compare (docs/training.md)"
    )
    max_skipped_steps: int = Field(
        5, ge=1, description="the run ends after this many steps in a row with NaN or infinity"
    )
    deterministic: bool = Field(
        False, description="use only algorithms that give the same bits each time, also on GPUs; slower"
    )
    timeout_minutes: float = Field(30.0, gt=0, description="minutes that a rank waits for the others")
    peak_tflops: float | None = Field(
        None,
        gt=0,
        description="peak speed for MFU and HFU; null: from the data sheet, else a measured product of matrices",
    )
    tensorboard: bool = Field(False, description="also write TensorBoard event files")
    wandb: str | None = Field(None, description="also log to this Weights & Biases project")

    @model_validator(mode="after")
    def _fits(self) -> RuntimeConfig:
        if len(set(self.speakers)) != len(self.speakers):
            raise SettingsConflict("speakers names a speaker twice", "speakers")
        return self

    @property
    def engine_name(self) -> str:
        """The engine's name in summaries."""
        return "torch" if self.engine == "torch" else f"deepspeed, ZeRO stage {self.zero_stage}"
