"""The stage of training as which the ``corpus`` commands see a corpus: its tokenizer, positions and settings."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cbtrain.cli.corpus_reading import config_of
from cbtrain.cli.model import model_of
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from cbtrain.study.stages import StageSpec


def stage_of(parsed: argparse.Namespace, supervise: str | None = None) -> StageSpec:
    """Return the stage that ``--speaker``, ``--config``, settings and their aliases name; ``supervise`` is over the
    settings. Raises UserError as training would, and if no model is named."""
    from rich.console import Console

    from cbtrain.study.stages import StageSpec, StudyModel

    if supervise:
        parsed.settings = [*parsed.settings, f"{parsed.speaker}.supervise={supervise}"]
    config = config_of(parsed)
    model_of(config, "corpus")
    model = StudyModel.of(config, "none", Console(stderr=True))
    return StageSpec.of(config, parsed.speaker, model, "cpu")


def at_least_one(value: int | None, name: str) -> None:
    """Raise UserError if the option ``name`` is given and below 1."""
    if value is not None and value < 1:
        raise UserError(f"{value} is too small", where=name, hint="At least 1.")
