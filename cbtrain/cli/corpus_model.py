"""The stage of training as which the ``corpus`` commands see a corpus: its tokenizer, positions and settings."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cbtrain.cli.corpus_reading import config_of
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from cbtrain.study.stages import StageSpec


def stage_of(parsed: argparse.Namespace, supervise: str | None = None) -> StageSpec:
    """Return the stage that ``--model``, ``--speaker``, ``--config`` and settings name; ``supervise`` is over them.
    Raises UserError as training would."""
    from rich.console import Console

    from cbtrain.study.stages import StageSpec, StudyModel

    # First, so that a tiny model's defaults do not apply; last, since an option is stronger than a config.
    over = [f"{parsed.speaker}.supervise={supervise}"] if supervise else []
    parsed.settings = [f"model.path={parsed.model}", *parsed.settings, *over]
    config = config_of(parsed)
    model = StudyModel.of(config, "none", Console(stderr=True))
    return StageSpec.of(config, parsed.speaker, model, "cpu")


def at_least_one(value: int | None, name: str) -> None:
    """Raise UserError if the option ``name`` is given and below 1."""
    if value is not None and value < 1:
        raise UserError(f"{value} is too small", where=name, hint="At least 1.")
