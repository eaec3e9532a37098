"""Options and loading of a model that is talked to: of ``cbtrain serve`` and ``cbtrain chat``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cbtrain.cli.model import add_format_arguments
from cbtrain.cli.parser import Parser

if TYPE_CHECKING:
    from rich.console import Console

    from cbtrain.config.schema import StudyConfig
    from cbtrain.generation.local_model import LocalModel


def add_local_model_arguments(parser: Parser, context: str) -> None:
    """Add the options of the model and its layout; ``context`` says what the longest of is."""
    parser.add_alias("--model", "model.path", help="model folder or hub id")
    parser.add_alias(
        "--chat-format",
        "tokens.format",
        help="auto: as the adapter was trained, else the tokenizer's chat template; plain: labels, for a base model",
    )
    add_format_arguments(parser)
    parser.add_alias("--threads", "threads", type=int, help="CPU threads")
    text = f"longest {context}, in tokens"
    parser.add_alias("--context", "evaluation.engine.context_tokens", type=int, help=text)


def load_local_model(
    parsed: argparse.Namespace, config: StudyConfig, name: str, adapters: Mapping[str, Path], console: Console
) -> tuple[LocalModel, list[str]]:
    """Return the model ``name`` with ``adapters`` as ``config`` says, and notes for the user. Raises UserError."""
    import torch

    from cbtrain.console import loading_bar
    from cbtrain.study.local_model import open_local_model

    if config.threads:
        torch.set_num_threads(config.threads)
    with loading_bar(console) as progress:
        model, note = open_local_model(name, adapters, config, force=parsed.force, progress=progress)
    return model, [*model.notes, *([note] if note else [])]
