"""The file of a comparison of objectives: which pairs and arms, with how many tokens, evaluated how (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cbtrain.config.layers import MergedSettings
from cbtrain.config.schema import StudyConfig
from cbtrain.config.sources import Layer, read_layers
from cbtrain.errors import UserError, nearest
from cbtrain.files import exists, expanded
from cbtrain.study.method_comparison.file_parts import (
    MANY,
    RATES,
    Rates,
    as_mapping,
    read_file,
    refuse_twins,
    rising_rates,
    run_budget,
)
from cbtrain.study.objective_comparison.arms import KINDS, UNTUNED
from cbtrain.study.sweep.sweep_file import nested
from cbtrain.transcripts.config import SplitConfig, TranscriptsConfig

PAGE = "See docs/objectives-compared.md."

PREFERENCE = "preference"

DECIDED = (
    *("objective", "supervise", PREFERENCE, "token_budget", "max_epochs", "patience", "validate_every", "seed"),
    "learning_rate",
)
"""Settings of the therapist's training that the comparison decides."""


def _all_arms() -> dict[str, dict[str, Any]]:
    return {name: {} for name in KINDS}


class ObjectivesFile(BaseModel):
    """What is compared. ``arms``: by name, what is its own: ``learning_rates``, and ``preference`` of orpo and dpo."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    config: str | None = Field(None, description="config of the study that all runs start from")
    pairs: str = Field(min_length=1, description="pairs of answers: a file, a folder, or sample-pairs")
    rejected_by: Literal["base", "other"] | None = Field(
        None, description="who wrote the rejected answers: the base itself, or another; null: not known"
    )
    arms: dict[str, dict[str, Any]] = Field(default_factory=_all_arms, min_length=1)
    split: SplitConfig = Field(
        default_factory=lambda: SplitConfig(validation=0.2, test=0.2), description="parts of the pairs, by patient"
    )
    prompt: str = Field("cbt", min_length=1, description="system prompt of the arm prompted")
    tokens: int | None = Field(None, ge=1, description="tokens that every tuned arm trains")
    passes: int | None = Field(None, ge=1, description="passes over the pairs of every tuned arm, instead of tokens")
    learning_rates: Rates = Field(default_factory=list, description="those tried for each tuned arm")
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="the first one searches the learning rate")
    settings: dict[str, Any] = Field(default_factory=dict, description="settings of the study over those of config")
    overrides: list[str] = Field(default_factory=list, description="key=value over all, as from the command line")

    @field_validator("arms", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return as_mapping(given)

    @model_validator(mode="after")
    def _fits(self) -> ObjectivesFile:
        if (self.tokens is None) == (self.passes is None):
            raise ValueError("tokens or passes: give one of them, which is then equal in all tuned arms")
        refuse_twins({"seeds": self.seeds, RATES: self.learning_rates})
        for name in self.arms:
            if name not in KINDS:
                raise ValueError(f"arms: unknown arm {name!r}. {nearest(name, KINDS)}")
        if UNTUNED not in self.arms or not self.tuned:
            raise ValueError(f"arms: {UNTUNED} and at least one tuned arm are needed to compare")
        return self

    @property
    def tuned(self) -> list[str]:
        """The arms that are trained."""
        return [name for name in self.arms if KINDS[name].tuned]

    def rates(self, name: str) -> Rates:
        """Return the learning rates of an arm, rising. Raises UserError if there are none, or they are no rates."""
        rates = rising_rates(self.arms[name].get(RATES, self.learning_rates))
        if rates is None:
            problem = f"arms.{name}: no learning rates above 0 to try"
            raise UserError(problem, hint=f"Write {RATES}: [1.0e-5, 5.0e-5].")
        return rates

    def check(self) -> None:
        """Raise UserError on settings of an arm that would make it unequal to others, or cannot be used."""
        therapist = nested(self.settings, "settings").get("therapist") or {}
        for key in DECIDED:
            if isinstance(therapist, dict) and key in therapist:
                hint = f"Leave it out; arms, {RATES}, seeds, tokens and passes say it."
                raise UserError(f"settings.therapist.{key}: is decided by the comparison", hint=hint)
        for name, own in self.arms.items():
            allowed = {RATES} if KINDS[name].tuned else set()
            allowed |= {PREFERENCE} if KINDS[name].prefers else set()
            for key in own.keys() - allowed:
                hint = f"An arm may have {' and '.join(sorted(allowed)) or 'nothing of its own'}."
                raise UserError(f"arms.{name}.{key}: is the same for all arms, or has no effect", hint=hint)
            if KINDS[name].tuned:
                self.rates(name)
                self.config_of(name, "base", Path("pairs"), rate=1e-4, seed=0)
        self.study()

    def study(self, *layers: Layer) -> StudyConfig:
        """Return the settings of the study, those of the comparison's own ``layers`` over all. Raises UserError on
        settings that cannot be used."""
        merged = MergedSettings(StudyConfig)
        for layer in read_layers(self.config) if self.config else ():
            merged.add(layer)
        merged.add(Layer("settings", nested(self.settings, "settings")))
        merged.override(self.overrides)
        for layer in layers:
            merged.add(layer)
        return merged.validated()

    def config_of(self, name: str, base: str, data: Path, *, rate: float, seed: int) -> StudyConfig:
        """Return the settings of a run of the tuned arm ``name`` over ``base``, on the parts of the pairs in the folder
        ``data``. Raises UserError as :meth:`study`."""
        settings = KINDS[name].settings
        assert settings is not None
        own: dict[str, Any] = {"learning_rate": rate, "seed": seed, **self._budget()}
        if PREFERENCE in self.arms[name]:
            own[PREFERENCE] = self.arms[name][PREFERENCE]
        config = self.study(
            Layer("the comparison", {"model": {"path": base}, "training": {"speakers": ["therapist"]}}),
            Layer(f"arms.{name}", settings),
            Layer("the run", {"therapist": own}),
        )
        return on_parts(config, data)

    def _budget(self) -> dict[str, Any]:
        """Return what ends every run at the same place: the best of all validations is kept."""
        if self.tokens is None:
            return {"token_budget": None, "max_epochs": self.passes, "patience": MANY, "validate_every": None}
        return run_budget(self.tokens)


def on_parts(config: StudyConfig, data: Path) -> StudyConfig:
    """Return ``config`` with the pairs in the folder ``data`` as its corpus, split as they are there."""
    files = {part: str(file) for part in ("validation", "test") if (file := data / f"{part}.jsonl").exists()}
    corpus = reading(config, str(data / "train.jsonl"), format="pairs", **files)
    return config.model_copy(update={"corpus": corpus, "split": SplitConfig(validation=0, test=0)})


def reading(config: StudyConfig, path: str, **more: str) -> TranscriptsConfig:
    """Return how the corpus at ``path`` is read: cleaned as that of ``config``, and otherwise by itself."""
    return TranscriptsConfig(path=path, cleaning=config.corpus.cleaning, skip_bad=config.corpus.skip_bad, **more)


def read_objectives(path: Path, overrides: Sequence[str] = (), pairs: str | None = None) -> ObjectivesFile:
    """Return the comparison in the YAML file ``path``, with ``key=value`` of the study over it, and ``pairs`` in
    place of its own; pairs and config beside the file may be named by a path from there. Raises UserError if it cannot
    be used."""

    def make(content: dict[str, Any]) -> ObjectivesFile:
        for key in ("pairs", "config"):
            if isinstance(value := content.get(key), str) and exists(beside := path.parent / expanded(value)):
                content[key] = str(beside.resolve())
        found = ObjectivesFile.model_validate(content | ({"pairs": pairs} if pairs else {}))
        return found.model_copy(update={"overrides": [*found.overrides, *overrides]})

    return read_file(path, make, "pairs and arms", PAGE)
