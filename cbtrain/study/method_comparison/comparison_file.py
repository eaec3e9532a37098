"""The file of a comparison: which methods, on which pairs, with how many tokens and trained numbers (torch-free)."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cbtrain.config.schema import StudyConfig
from cbtrain.config.sources import Layer
from cbtrain.errors import UserError
from cbtrain.files import exists, expanded, shipped
from cbtrain.model.config import HIGHEST_RANK
from cbtrain.study.entity_matching.settings import STAGE, matching_config
from cbtrain.study.method_comparison.file_parts import (
    RATES,
    Rates,
    as_mapping,
    read_file,
    refuse_twins,
    rising_rates,
    run_budget,
)
from cbtrain.study.sweep.sweep_file import NAME, NAME_HINT, nested
from cbtrain.tasks.entity_matching.generate import FEWEST, PAIRS
from cbtrain.tasks.entity_matching.prompts import DEFAULT, Prompt

COMPARISONS = "comparisons"
"""Folder of the shipped ones."""

OF_OBJECTIVES = "objectives"
"""With this begin the names of those that compare objectives, which have a form of their own."""

SEARCHED = ("token_budget", "max_epochs", "patience", "validate_every", "seed", "learning_rate", "method")
"""Settings of a stage that the comparison decides."""

SHARED = ("pack_tokens", "packs_per_step", "tokens_per_step", "validation_tokens")
"""Settings of a stage that are the same for all methods."""

SIZES = ("lora.rank", "options.rank", "options.parameters")
"""Settings that are made equal."""


class ComparisonFile(BaseModel):
    """What is compared. ``methods``: settings of each (those of a stage of training: ``options``, ``lora``, …, and
    ``learning_rates`` of its own) under a name, which is that of the method if there is no ``method``."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    base: str | None = Field(None, description="model folder or hub id; null: make the task's small base")
    pairs: int | str = Field(PAIRS, description="pairs of invented products to generate, or a folder of pairs")
    test_pairs: int | None = Field(None, ge=10, description="ask about so many pairs of the test part; null: all")
    prompt: str = DEFAULT
    rank: int = Field(8, ge=1, le=HIGHEST_RANK, description="others train as many numbers as LoRA of this rank")
    tokens: int = Field(200_000, ge=1_000, description="tokens that each run is trained on")
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="the first one searches the learning rate")
    learning_rates: Rates = Field([3e-4, 1e-3, 3e-3], min_length=1)
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict, description="settings of every run, as model.weights")

    @field_validator("methods", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return as_mapping(given)

    @field_validator("prompt")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return Prompt.named(name).name
        except UserError as error:
            raise ValueError(f"{error.what}. {error.hint or ''}".rstrip()) from None

    @model_validator(mode="after")
    def _fits(self) -> ComparisonFile:
        if isinstance(self.pairs, int) and self.pairs < FEWEST:
            raise ValueError(f"pairs: must be at least {FEWEST}")
        refuse_twins({"seeds": self.seeds, RATES: self.learning_rates})
        for name in self.methods:
            if not NAME.fullmatch(name):
                raise ValueError(f"methods: {name!r} cannot name a folder. {NAME_HINT}")
        return self

    def rates(self, name: str) -> Rates:
        """Return the learning rates of a method, rising. Raises UserError on what is no list of rates."""
        rates = rising_rates(self.methods[name].get(RATES, self.learning_rates))
        if rates is None:
            hint = f"Write {RATES}: [1.0e-4, 3.0e-4]."
            raise UserError(f"methods.{name}.{RATES}: must be numbers above 0", hint=hint)
        return rates

    def check(self) -> None:
        """Raise UserError on a method whose settings cannot be used, or would make it unequal to others."""
        for key in _dotted(nested(self.settings, "settings")):
            if key in [f"{STAGE}.{one}" for one in SEARCHED]:
                hint = "Leave it out; learning_rates, tokens, seeds and methods say it."
                raise UserError(f"settings.{key}: is decided by the comparison", hint=hint)
        for name, own in self.methods.items():
            where = f"methods.{name}"
            for key in _dotted({key: value for key, value in own.items() if key not in (RATES, "method")}):
                if key in (*SEARCHED, *SHARED):
                    hint = f"Leave it out; {RATES}, tokens, seeds and settings say it."
                    raise UserError(f"{where}.{key}: is the same for all methods, or searched", hint=hint)
                if key in SIZES:
                    problem = f"{where}.{key}: sizes are made equal to LoRA's of rank {self.rank}"
                    raise UserError(problem, hint="Set rank of the comparison.")
            self.rates(name)
            self.config(name, "base")

    def config(self, name: str, base: str, overrides: Sequence[Layer] = ()) -> StudyConfig:
        """Return the settings of a run of the method ``name`` over ``base``; ``overrides`` are what is the run's own.
        Raises UserError on settings that cannot be used."""
        own = {key: value for key, value in self.methods[name].items() if key != RATES}
        own.setdefault("method", name)
        layers = [
            Layer("settings", nested(self.settings, "settings")),
            Layer("the comparison", {STAGE: run_budget(self.tokens)}),
            Layer(f"methods.{name}", {STAGE: nested(own, f"methods.{name}")}),
        ]
        return matching_config(base, layers=[*layers, *overrides])


def _dotted(settings: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{at}{key}.")
        else:
            yield f"{at}{key}"


def shipped_comparisons(*, of_objectives: bool = False) -> list[str]:
    """Return the names of the shipped comparisons of methods, or of objectives."""
    return [name for name in shipped(COMPARISONS) if name.startswith(OF_OBJECTIVES) == of_objectives]


def find_comparison(word: str, *, of_objectives: bool = False) -> Path:
    """Return the file that ``word`` names: a path, or the name of a shipped comparison. Raises UserError if it names
    none."""
    path, names = expanded(word), shipped_comparisons(of_objectives=of_objectives)
    if exists(path):
        return path
    if word not in names:
        raise UserError("no such file of a comparison", where=word, hint=f"Shipped: {', '.join(names)}.")
    return Path(str(importlib.resources.files("cbtrain.configs") / COMPARISONS / f"{word}.yaml"))


def read_comparison(path: Path) -> ComparisonFile:
    """Return the comparison in the YAML file ``path``; a folder of pairs, and a base that is one, beside the file may
    be named by a path from there. Raises UserError if it cannot be used."""

    def make(content: dict[str, Any]) -> ComparisonFile:
        for key in ("base", "pairs"):
            if isinstance(value := content.get(key), str) and (beside := path.parent / expanded(value)).is_dir():
                content[key] = str(beside.resolve())
        return ComparisonFile.model_validate(content)

    return read_file(path, make, "methods", "See docs/methods.md.")
