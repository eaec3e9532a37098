"""The settings of the task: those of a study, of which it uses model, tokens, training and the stage therapist."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cbtrain.config.layers import MergedSettings
from cbtrain.config.schema import StudyConfig
from cbtrain.config.sources import Layer, read_layers

TASKS = "tasks"
"""Folder of the shipped settings of tasks."""

STAGE: Final = "therapist"
"""The stage whose settings say how the task is trained: methods, learning rates and packs are those of an adapter of
any study."""


def matching_config(
    base: str,
    source: str | None = None,
    overrides: Sequence[str] = (),
    run_config: Path | None = None,
    layers: Sequence[Layer] = (),
) -> StudyConfig:
    """Return the settings of the task over the model ``base``: the shipped ones, over them those of ``source``, a YAML
    file or a shipped config, of ``run_config``, the settings of a run that continues, of ``layers``, and ``key=value``.

    Raises UserError as :func:`cbtrain.config.loading.load_config`.
    """
    settings = MergedSettings(StudyConfig)
    for layer in read_layers("entity-matching", TASKS):
        settings.add(layer)
    for name in filter(None, (source, str(run_config) if run_config else None)):
        for layer in read_layers(name):
            settings.add(layer)
    for layer in layers:
        settings.add(layer)
    settings.add(Layer("--base", {"model": {"path": base}, "training": {"speakers": [STAGE]}}))
    settings.override(overrides)
    return settings.validated()
