"""For the ``corpus`` commands that need a model: its tokenizer, its context length, and the settings of training."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cbtrain.cli.corpus_reading import config_of
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from cbtrain.config.schema import StudyConfig
    from cbtrain.model.architecture import Architecture
    from cbtrain.tokens.document_builder import DocumentBuilder
    from cbtrain.training.config import StageConfig

UNBOUNDED = 2**31
"""Context length assumed for a folder that holds only a tokenizer."""


@dataclass(frozen=True, slots=True)
class Reader:
    """``builder`` makes documents for ``parsed.speaker`` as training would; ``architecture`` is None where the model's
    folder has no config.json."""

    builder: DocumentBuilder
    config: StudyConfig
    settings: StageConfig
    architecture: Architecture | None


def reader_of(parsed: argparse.Namespace, supervise: str | None = None) -> Reader:
    """Return the reader for the parsed options and settings. Raises UserError as training would."""
    from cbtrain.model.architecture import read_architecture
    from cbtrain.model.weights.hub import resolve_model
    from cbtrain.study.datasets import make_builder
    from cbtrain.tokens.chat import ChatRenderer
    from cbtrain.tokens.formats import choose_format
    from cbtrain.tokens.tokenizer import load_tokenizer

    parsed.settings = [f"model.path={parsed.model}", *parsed.settings]  # not the defaults of a tiny model
    config = config_of(parsed)
    folder = resolve_model(parsed.model)
    tokenizer = load_tokenizer(folder)
    renderer = ChatRenderer(tokenizer, choose_format(tokenizer, config.tokens.format, parsed.speaker))
    architecture = read_architecture(folder) if (folder / "config.json").exists() else None
    positions = architecture.context if architecture else UNBOUNDED
    settings: StageConfig = getattr(config, parsed.speaker)
    if supervise:
        settings = settings.model_copy(update={"supervise": supervise})
    builder = make_builder(renderer, parsed.speaker, settings, positions, config, measured=False)
    return Reader(builder, config, settings, architecture)


def at_least_one(value: int | None, name: str) -> None:
    """Raise UserError if the option ``name`` is given and below 1."""
    if value is not None and value < 1:
        raise UserError(f"{value} is too small", where=name, hint="At least 1.")
