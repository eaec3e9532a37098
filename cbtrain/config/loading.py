"""Settings out of files and ``key=value``: YAML in, one checked object out, and back to YAML."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cbtrain.config.overrides import apply_override, rank
from cbtrain.config.problems import first_problem, refuse_unknown
from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError, nearest
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.overrides import FOLDER, merge
from cbtrain.synthesis.config import SynthesisConfig

Config = TypeVar("Config", bound=BaseModel)


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
    refuse_unknown(given, model, source or "command line")
    if ground:
        given = merge(_read(str(ground), folder), given)
    for override in sorted(overrides, key=rank):
        apply_override(given, override, model)
    refuse_unknown(given, model, "command line" if overrides else source or str(ground))
    try:
        return model.model_validate(given)
    except ValidationError as error:
        key, problem, hint = first_problem(error, model)
        typed = [override.partition("=")[0] for override in overrides]
        if key:
            moved = key.replace("api_key_env", "base_url")  # which asks for the other
            by_hand = any(name.startswith((key, moved)) or key.startswith(name) for name in typed)
        else:  # sections that do not fit together
            by_hand = any(name in problem for name in typed)
        where = "command line" if by_hand else source or str(ground or "command line")
        raise UserError(f"{key}: {problem}" if key else problem, where=where, hint=hint) from None


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
            raise UserError("no such config file", where=source, hint=nearest(source, shipped))
        given = _unshared(yaml.load(text, UniqueKeys))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = source if line is None else f"{source}:{line + 1}"
        raise UserError(f"malformed YAML ({getattr(error, 'problem', error)})", where=where, hint="Mend it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", where=source, hint="Name a readable YAML file.") from None
    except (ValueError, RecursionError) as error:  # such as the 45th of a month, or a section inside itself
        raise UserError(f"malformed YAML ({error})", where=source, hint="Quote or mend it.") from None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise UserError("not a mapping of keys to values", where=source, hint="See `cbtrain config`.")
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
