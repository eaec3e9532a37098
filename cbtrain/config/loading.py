"""Settings out of files and ``key=value``: YAML in, one checked object out, and back to YAML."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from cbtrain.config.layers import MergedSettings
from cbtrain.config.schema import StudyConfig
from cbtrain.config.sources import STUDIES, SYNTHESIS, Layer, read_layer, read_layers, shipped_configs
from cbtrain.files import exists
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.overrides import FOLDER
from cbtrain.synthesis.config import SynthesisConfig

Config = TypeVar("Config", bound=BaseModel)

KINDS: dict[str, type[BaseModel]] = {"study": StudyConfig, "synthesis": SynthesisConfig, "provider": ProviderConfig}
"""Kinds of configs."""


def load_config(
    source: str | None,
    overrides: Sequence[str] = (),
    run_config: Path | None = None,
    options: Sequence[tuple[str, str, Any]] = (),
) -> StudyConfig:
    """Return the study that ``source`` (a YAML file, or the name of a shipped config) and ``key=value`` overrides
    describe. They override ``run_config``, the file of a run's own settings, if it is given.

    ``options`` are laid over all: option, dotted key and value of each. Raises UserError on a missing or malformed
    file, an unknown key (with the nearest valid one), a wrong value.
    """
    settings = _merged(StudyConfig, source, overrides, STUDIES, run_config)
    for option, key, value in options:
        settings.add(Layer(option, reduce(lambda inner, part: {part: inner}, reversed(key.split(".")), value)))
    return settings.validated()


def load_synthesis_config(source: str, overrides: Sequence[str] = ()) -> SynthesisConfig:
    """Return how new transcripts are to be written; as :func:`load_config`."""
    return _merged(SynthesisConfig, source, overrides, SYNTHESIS).validated()


def load_provider_config(source: str, overrides: Sequence[str] = ()) -> ProviderConfig:
    """Return one API's settings, from a YAML file or a preset; as :func:`load_config`."""
    return _merged(ProviderConfig, source, overrides, FOLDER).validated()


def _merged(
    model: type[Config], source: str | None, overrides: Sequence[str], folder: str, run_config: Path | None = None
) -> MergedSettings[Config]:
    settings = MergedSettings(model)
    for name in (str(run_config) if run_config else None, source):
        for layer in read_layers(name, folder) if name else ():
            settings.add(layer)
    settings.override(overrides)
    return settings


def kind_of(source: str) -> str:
    """Return ``study`` or ``synthesis``: by the folder of a shipped name, which may be one that a file extends, else by
    which of them knows more of the file's keys. Raises UserError as :func:`load_config`."""
    studies, written = shipped_configs(), shipped_configs(SYNTHESIS)
    if not exists(source):
        return "synthesis" if source in written and source not in studies else "study"
    layer = read_layer(Path(source))
    if layer.extends in written and layer.extends not in studies:
        return "synthesis"
    of_study, of_synthesis = (len(layer.values.keys() & KINDS[kind].model_fields) for kind in ("study", "synthesis"))
    return "synthesis" if of_synthesis > of_study else "study"


def dump_config(config: BaseModel) -> str:
    """Return YAML that :func:`load_config` reads back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
