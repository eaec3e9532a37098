"""One file format for a whole study: the rooms' configs composed, YAML in, ``key=value`` overrides on top."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cbtrain.errors import UserError, nearest
from cbtrain.eval.config import EvaluationConfig
from cbtrain.model.config import ModelConfig, TinyModelConfig
from cbtrain.synthesis.config import SynthesisConfig
from cbtrain.tokens.config import TokensConfig
from cbtrain.training.config import TrainingConfig
from cbtrain.transcripts.config import SplitConfig, TranscriptsConfig

Config = TypeVar("Config", bound=BaseModel)

# A tiny model that has seen a few hundred thousand tokens wants larger steps than a real one.
TINY_DEFAULTS: dict[str, Any] = {
    # Small packs make many steps; a session that is longer than one stays whole in a pack of its own.
    "tokens": {"document_tokens": 32_768},
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
        "validate_every": 30_000,
        "validation_tokens": 16_000,
    },
    "patient": {
        "learning_rate": 5e-3,
        "lora": {"alpha": 32},
        "pack_tokens": 1024,
        "token_budget": 80_000,
        "validate_every": 30_000,
        "validation_tokens": 16_000,
    },
}


class StudyConfig(BaseModel):
    """Everything that decides a study's result."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, ge=1, description="CPU threads; none takes every core")
    corpus: TranscriptsConfig = Field(default_factory=TranscriptsConfig)
    split: SplitConfig = Field(default_factory=SplitConfig)
    tokens: TokensConfig = Field(default_factory=TokensConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    tiny: TinyModelConfig = Field(default_factory=TinyModelConfig)
    base: TrainingConfig = Field(default_factory=TrainingConfig, description="how a tiny base model is trained")
    base_window: int = Field(
        512, ge=16, description="most base documents are cut to this many tokens, one in four is whole"
    )
    therapist: TrainingConfig = Field(default_factory=TrainingConfig)
    patient: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        model = given.get("model")
        if isinstance(model, dict) and model.get("path"):
            return given
        return _merge(TINY_DEFAULTS, given)


def load_config(source: str | None, overrides: Sequence[str] = (), ground: Path | None = None) -> StudyConfig:
    """The study that ``source`` (a YAML file, or the name of a shipped config) and ``key=value`` overrides describe,
    both over the settings in ``ground`` (a run's own) where it is given.

    Raises UserError on a missing or malformed file, an unknown key (with the nearest valid one), a wrong value.
    """
    return _load(StudyConfig, source, overrides, ".", ground)


def load_synthesis_config(source: str, overrides: Sequence[str] = ()) -> SynthesisConfig:
    """How new transcripts are to be written; as :func:`load_config`."""
    return _load(SynthesisConfig, source, overrides, "synthesis")


def _load(
    model: type[Config], source: str | None, overrides: Sequence[str], folder: str, ground: Path | None = None
) -> Config:
    given = _read(source, folder) if source else {}
    _refuse_unknown(given, model, source or "command line")
    if ground:
        given = _merge(_read(str(ground), folder), given)
    for override in overrides:
        _apply(given, override, model)
    _refuse_unknown(given, model, "command line" if overrides else source or str(ground))
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        shown = not isinstance(first["input"], dict) and not key.endswith("api_key_env")  # it may be a key
        typed = any(
            override.partition("=")[0].startswith(key) or key.startswith(override.partition("=")[0])
            for override in overrides
        )
        where = "command line" if typed else source or str(ground or "command line")
        raise UserError(f"{key}: {problem}", where=where, fix=f"Got {first['input']!r}." if shown else None) from None


def dump_config(config: StudyConfig) -> str:
    """YAML that :func:`load_config` reads back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped_configs(folder: str = ".") -> list[str]:
    """Names of the configs of one kind in the package: studies, or those of ``folder``."""
    names = [file.name for file in (importlib.resources.files("cbtrain.configs") / folder).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _read(source: str, folder: str) -> dict[str, Any]:
    path, shipped = Path(source), shipped_configs(folder)
    try:
        if path.exists():
            text = path.read_text(encoding="utf-8")
        elif source in shipped:
            text = (importlib.resources.files("cbtrain.configs") / folder / f"{source}.yaml").read_text("utf-8")
        else:
            raise UserError("no such config file", where=source, fix=nearest(source, shipped))
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = source if line is None else f"{source}:{line + 1}"
        raise UserError(f"malformed YAML ({getattr(error, 'problem', error)})", where=where, fix="Mend it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", where=source, fix="Name a readable YAML file.") from None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise UserError("not a mapping of keys to values", where=source, fix="See `cbtrain config`.")
    return given


def _apply(given: dict[str, Any], override: str, model: type[BaseModel]) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(
            f"{override!r} is not key=value", where="command line", fix="E.g. therapist.learning_rate=1e-4."
        )
    at, parts = given, key.split(".")
    for part in parts[:-1]:
        inner = at.get(part)
        if inner is None:
            inner = at[part] = {}
        if not isinstance(inner, dict):
            raise UserError(f"{part!r} in {key!r} is not a section", where="command line", fix="See `cbtrain config`.")
        at = inner
    at[parts[-1]] = _value(value, _annotation(model, parts))


def _value(text: str, annotation: Any) -> Any:
    """``text`` as YAML, but where a text is wanted as it stands: paths may hold anything."""
    wants_text = annotation is str or set(getattr(annotation, "__args__", ())) == {str, type(None)}
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if wants_text and not quoted and (annotation is str or text not in ("null", "~")):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _annotation(model: type[BaseModel], parts: Sequence[str]) -> Any:
    """The type of the field at ``parts``, None where there is no such field."""
    field = model.model_fields.get(parts[0])
    if field is None or len(parts) == 1:
        return field.annotation if field else None
    inner = _section(field.annotation)
    return _annotation(inner, parts[1:]) if inner else None


def _refuse_unknown(given: dict[str, Any], model: type[BaseModel], where: str, prefix: str = "") -> None:
    for key, value in given.items():
        field = model.model_fields.get(key)
        if field is None:
            raise UserError(
                f"unknown key {prefix + str(key)!r}", where=where, fix=nearest(str(key), model.model_fields)
            )
        inner = _section(field.annotation)
        if inner and isinstance(value, dict):
            _refuse_unknown(value, inner, where, f"{prefix}{key}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    """The config class of a field, also where it is optional."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
