"""One file format for a whole study: the rooms' configs composed, YAML in, ``key=value`` overrides on top."""

from __future__ import annotations

import difflib
import importlib.resources
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cbtrain.errors import UserError, nearest
from cbtrain.eval.config import EvaluationConfig
from cbtrain.model.config import ModelConfig, TinyModelConfig
from cbtrain.providers.config import ProviderConfig, ProvidersConfig
from cbtrain.providers.layers import FOREIGN, merge
from cbtrain.providers.presets import FOLDER
from cbtrain.synthesis.config import SynthesisConfig
from cbtrain.tokens.config import TokensConfig
from cbtrain.training.config import RuntimeConfig, TrainingConfig
from cbtrain.transcripts.config import SplitConfig, TranscriptsConfig

Config = TypeVar("Config", bound=BaseModel)

FIRST = ("provider", "patient_provider", "preset", "kind", "base_url", "model")
"""Keys that say which API is meant, in the order in which they are taken: each sets aside something of lower layers."""

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
    training: RuntimeConfig = Field(default_factory=RuntimeConfig)
    base: TrainingConfig = Field(default_factory=TrainingConfig, description="how a tiny base model is trained")
    base_window: int = Field(
        512, ge=16, description="most base documents are cut to this many tokens, one in four is whole"
    )
    therapist: TrainingConfig = Field(default_factory=TrainingConfig)
    patient: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    providers: ProvidersConfig = Field(default_factory=ProvidersConfig)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        model = given.get("model")
        if isinstance(model, dict) and model.get("path"):
            return given
        return merge(TINY_DEFAULTS, given)

    @model_validator(mode="after")
    def _sections_fit(self) -> StudyConfig:
        """What one section asks for and another rules out. Stages that are not trained may say what they like."""
        for speaker in self.training.speakers:
            if getattr(self, speaker).method == "full" and self.model.weights == "nf4":
                raise ValueError(f"{speaker}.method: full needs fp32 or bf16 weights, not nf4; set model.weights")
        stages = [*(["base"] if self.model.path is None else []), *self.training.speakers]
        for stage in stages if self.training.engine == "deepspeed" else ():
            problem = _beyond_zero(stage, getattr(self, stage), self)
            if problem:
                raise ValueError(problem)
        return self


def _beyond_zero(stage: str, settings: TrainingConfig, study: StudyConfig) -> str | None:
    """Why DeepSpeed cannot train ``stage`` so, and what to do; None where it can."""
    if settings.optimizer not in ("adamw", "sgd"):
        fix = "take adamw or sgd, or set training.engine=torch"
        return f"{stage}.optimizer: {settings.optimizer} is not tested under ZeRO; {fix}"
    if settings.lora_plus_ratio:
        return f"{stage}.lora_plus_ratio: ZeRO takes one learning rate; leave it out, or set training.engine=torch"
    if settings.method == "full" and study.model.weights == "bf16" and study.training.zero_stage < 2:
        return f"{stage}.method: bf16 weights are trained in ZeRO stages 2 and 3; set training.zero_stage=2"
    if study.training.zero_stage < 3:
        return None
    less = "set training.zero_stage to 1 or 2"
    if study.model.weights == "nf4":
        return f"model.weights: ZeRO-3 cannot shard the packed weights of nf4; {less}, or take bf16"
    if settings.method == "lora" and settings.lora.dora:
        return f"{stage}.lora.dora: its norm needs whole weights, which ZeRO-3 shards; {less}"
    if settings.method == "lora" and settings.lora.modules_to_save:
        return f"{stage}.lora.modules_to_save: not tested under ZeRO-3; {less}"
    return None


def load_config(source: str | None, overrides: Sequence[str] = (), ground: Path | None = None) -> StudyConfig:
    """The study that ``source`` (a YAML file, or the name of a shipped config) and ``key=value`` overrides describe,
    both over the settings in ``ground`` (a run's own) where it is given.

    Raises UserError on a missing or malformed file, an unknown key (with the nearest valid one), a wrong value.
    """
    return _load(StudyConfig, source, overrides, ".", ground)


def load_synthesis_config(source: str, overrides: Sequence[str] = ()) -> SynthesisConfig:
    """How new transcripts are to be written; as :func:`load_config`."""
    return _load(SynthesisConfig, source, overrides, "synthesis")


def load_provider_config(source: str, overrides: Sequence[str] = ()) -> ProviderConfig:
    """One API's settings, from a YAML file or a preset; as :func:`load_config`."""
    return _load(ProviderConfig, source, overrides, FOLDER)


def _load(
    model: type[Config], source: str | None, overrides: Sequence[str], folder: str, ground: Path | None = None
) -> Config:
    given = _read(source, folder) if source else {}
    _refuse_unknown(given, model, source or "command line")
    if ground:
        given = merge(_read(str(ground), folder), given)
    for override in sorted(overrides, key=_rank):
        _apply(given, override, model)
    _refuse_unknown(given, model, "command line" if overrides else source or str(ground))
    try:
        return model.model_validate(given)
    except ValidationError as error:
        key, problem, fix = _first_problem(error, model)
        typed = [override.partition("=")[0] for override in overrides]
        if key:
            moved = key.replace("api_key_env", "base_url")  # which asks for the other
            by_hand = any(name.startswith((key, moved)) or key.startswith(name) for name in typed)
        else:  # sections that do not fit together
            by_hand = any(name in problem for name in typed)
        where = "command line" if by_hand else source or str(ground or "command line")
        raise UserError(f"{key}: {problem}" if key else problem, where=where, fix=fix) from None


def _rank(override: str) -> int:
    key = override.partition("=")[0].rpartition(".")[2]
    return FIRST.index(key) if key in FIRST else len(FIRST)


def _first_problem(error: ValidationError, model: type[BaseModel]) -> tuple[str, str, str | None]:
    """Key (empty where sections do not fit together), problem and remedy of the first thing wrong."""
    first = error.errors()[0]
    at = _known_part(first["loc"], model)
    key, got = ".".join(map(str, at)), first["input"]
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "model_type":
        problem = "Input should be a section of keys and values"
    # Where a value may be of several kinds, pydantic complains once for each.
    kinds = dict.fromkeys(e["msg"].partition(",")[0] for e in error.errors() if e["loc"][: len(at)] == tuple(at))
    if len(at) < len(first["loc"]) and len(kinds) > 1:
        problem = " or ".join(kinds).replace("or Input should be", "or")
    named = first["type"] == "value_error" and (repr(got) in problem or problem.endswith("?"))
    if first["type"] == "missing" and str(at[-1]) == "model":
        return key, problem, "Name one, or take a preset, which brings one (`cbtrain providers list`)."
    if isinstance(got, dict) or named or key.endswith(("api_key_env", "base_url")):  # which may hold the key itself
        return key, problem, None
    return key, problem, f"{_got(got)}{_meant(first)}"


def _known_part(loc: Sequence[str | int], model: type[BaseModel]) -> list[str | int]:
    """``loc`` up to the last part that is written in a config: pydantic adds which kind of value it tried."""
    at: list[str | int] = []
    inner: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, str) and inner and part not in inner.model_fields:
            break
        if isinstance(part, str) and not inner:
            break
        at.append(part)
        if isinstance(part, str) and inner:
            inner = _section(inner.model_fields[part].annotation)
    return at


def _got(value: Any) -> str:
    text = repr(value)
    return f"Got {text if len(text) <= 80 else text[:77] + '...'}."


def _meant(error: Mapping[str, Any]) -> str:
    """What was probably meant by a value of the wrong kind, where that can be told."""
    if error["type"] == "int_parsing" and re.fullmatch(r"\d+e\d", error["input"]):  # to YAML 1e6 is a text
        return f" Write it as {int(float(error['input']))}."
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        close = difflib.get_close_matches(str(error["input"]), choices, n=1, cutoff=0.6)
        return f" Did you mean {close[0]!r}?" if close else ""
    return ""


def dump_config(config: StudyConfig) -> str:
    """YAML that :func:`load_config` reads back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped_configs(folder: str = ".") -> list[str]:
    """Names of the configs of one kind in the package: studies, or those of ``folder``."""
    names = [file.name for file in (importlib.resources.files("cbtrain.configs") / folder).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def first_comment(name: str, folder: str = ".") -> str:
    """What a shipped config says of itself in its first line."""
    text = (importlib.resources.files("cbtrain.configs") / folder / f"{name}.yaml").read_text("utf-8")
    return text.partition("\n")[0].lstrip("# ")


def read_keys(source: str) -> list[str]:
    """The sections that the file ``source`` has, known or not. Raises UserError as :func:`load_config`."""
    return [str(key) for key in _read(source, ".")]


def _read(source: str, folder: str) -> dict[str, Any]:
    path, shipped = Path(source), shipped_configs(folder)
    try:
        if path.exists():
            text = path.read_text(encoding="utf-8")
        elif source in shipped:
            text = (importlib.resources.files("cbtrain.configs") / folder / f"{source}.yaml").read_text("utf-8")
        else:
            raise UserError("no such config file", where=source, fix=nearest(source, shipped))
        given = _unshared(yaml.load(text, UniqueKeys))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = source if line is None else f"{source}:{line + 1}"
        raise UserError(f"malformed YAML ({getattr(error, 'problem', error)})", where=where, fix="Mend it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", where=source, fix="Name a readable YAML file.") from None
    except (ValueError, RecursionError) as error:  # such as the 45th of a month, or a section inside itself
        raise UserError(f"malformed YAML ({error})", where=source, fix="Quote or mend it.") from None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise UserError("not a mapping of keys to values", where=source, fix="See `cbtrain config`.")
    return given


def _unshared(value: Any) -> Any:
    """A copy in which nothing stands twice: what YAML's anchors share would change together."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


class UniqueKeys(yaml.SafeLoader):
    """YAML in which a key may come once: of two, one would be dropped silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} comes twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


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
        if isinstance(inner, str) and part.endswith("provider"):
            inner = at[part] = {"preset": inner}
        if not isinstance(inner, dict):
            raise UserError(f"{part!r} in {key!r} is not a section", where="command line", fix="See `cbtrain config`.")
        at = inner
    new = {parts[-1]: _value(value, _annotation(model, parts))}
    whole = merge(at, new, FOREIGN not in parts[:-1]) | new
    at.clear()
    at.update(whole)


def _value(text: str, annotation: Any) -> Any:
    """``text`` as YAML, but where a text is wanted as it stands: paths may hold anything."""
    wants_text = annotation is str or set(getattr(annotation, "__args__", ())) == {str, type(None)}
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if wants_text and not quoted and (annotation is str or text not in ("null", "~")):
        return text
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # such as the 45th of a month
        return text


def _annotation(model: type[BaseModel], parts: Sequence[str]) -> Any:
    """The type of the field at ``parts``, None where there is no such field."""
    field = model.model_fields.get(parts[0])
    if field is None or len(parts) == 1:
        return field.annotation if field else None
    inner = _section(field.annotation)
    return _annotation(inner, parts[1:]) if inner else None


def _refuse_unknown(given: Mapping[str, Any], model: type[BaseModel], where: str) -> None:
    for section, at, key in _unknown(given, model, ()):
        raise UserError(f"unknown key {'.'.join((*at, key))!r}", where=where, fix=_known_key(key, section, model))


def _unknown(
    given: Mapping[str, Any], section: type[BaseModel], at: tuple[str, ...]
) -> Iterator[tuple[type[BaseModel], tuple[str, ...], str]]:
    """Keys of ``given`` that ``section`` has not, with the section and the way to it."""
    for key, value in given.items():
        field = section.model_fields.get(key)
        if field is None:
            yield section, at, str(key)
            continue
        inner = _section(field.annotation)
        entries = [(value, (*at, key))]
        if isinstance(value, list):
            entries = [(entry, (*at, key, str(place))) for place, entry in enumerate(value)]
        for entry, way in entries:
            if inner and isinstance(entry, dict):
                yield from _unknown(entry, inner, way)


def _known_key(key: str, section: type[BaseModel], model: type[BaseModel]) -> str:
    """A hint: the key of this section that is all but the same, else a key of that name elsewhere, else the nearest."""
    if not difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.8):
        same = [path for path in _paths(model) if path.rpartition(".")[2] == key]
        # What each stage of training has is most likely meant for the therapist.
        same = [path for path in same if path.partition(".")[0] not in ("base", "patient")] or same
        if same:
            return f"Did you mean {' or '.join(map(repr, same[:3]))}?"
    return nearest(key, section.model_fields)


def _paths(model: type[BaseModel], at: str = "") -> Iterator[str]:
    """Every key of ``model`` and its sections, with dots."""
    for key, field in model.model_fields.items():
        yield at + key
        inner = _section(field.annotation)
        if inner and get_origin(field.annotation) is not list:
            yield from _paths(inner, f"{at}{key}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    """The config class of a field, also where it is optional or a list."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
