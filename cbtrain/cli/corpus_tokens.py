"""``cbtrain corpus tokens``: tokens of an epoch, how full packs are, and how much is trimmed."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from cbtrain.cli.corpus_model import at_least_one, stage_of
from cbtrain.cli.corpus_reading import config_of, tell_own_prompts, whole
from cbtrain.console import table_of
from cbtrain.errors import UserError

ROWS = {
    "chat_format": "chat format",
    "units": "sessions (or courses, with tokens.document=course)",
    "units_cut": "of them cut between turns",
    "documents": "documents",
    "longest_document": "longest document, tokens",
    "tokens_per_epoch": "tokens an epoch",
    "supervised_per_epoch": "of them supervised",
    "trimmed_tokens": "cut off after the last supervised token",
    "context_left_out_tokens": "in turns left out of the context, which was full",
    "whole_recipe_tokens_per_epoch": "tokens an epoch, each session once",
    "paper_recipe_tokens_per_epoch": "tokens an epoch, the 2024 study's recipe",
    "packs": "packs",
    "fill": "slots filled",
    "unused_slots": "slots unused",
    "method": "packed by",
    "steps": "optimizer steps",
    "imbalance": "ranks' time spent waiting (estimated)",
}
"""The numbers that are printed, and their labels."""


def tokens(parsed: argparse.Namespace) -> None:
    """Tokenize the whole cleaned corpus as training would, and print the counts."""
    at_least_one(parsed.ranks, "--ranks")
    description = _facts(parsed)
    if parsed.json:
        print(json.dumps(description, indent=2))
        return
    from rich.console import Console

    console = Console()
    config = config_of(parsed)
    table = table_of(f"{config.corpus.path}, by {config.model.path}", "", numbers=1)
    for name, label in ROWS.items():
        table.add_row(label, _shown(description[name]))
    console.print(table)


def _facts(parsed: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console

    from cbtrain.console import counted_bar
    from cbtrain.study.datasets import course_units
    from cbtrain.tokens.system_prompts import OwnPrompts
    from cbtrain.tokens.tokenize import cache_root, tokenize
    from cbtrain.training.packs import check_packs_per_step, open_stream
    from cbtrain.transcripts.cleaning import clean

    stage = stage_of(parsed)
    config, settings, builder = stage.config, stage.settings, stage.builder()
    check_packs_per_step(settings, parsed.ranks, parsed.speaker)  # before minutes of tokenizing
    read = whole(parsed)
    tell_own_prompts(OwnPrompts(read.sessions()), parsed)
    corpus, _ = clean(read, config.corpus.cleaning)
    units = course_units(corpus.courses, parsed.speaker, config)
    if not units:
        raise UserError("no session in which both speak", where=config.corpus.path, hint="See `cbtrain corpus check`.")
    with counted_bar(Console(stderr=True), "Tokenizing") as progress:
        tokenized = tokenize(units, builder, root=cache_root(config.tokens.cache), progress=progress)
    if tokenized.note:
        print(tokenized.note, file=sys.stderr)
    stream = open_stream(tokenized.documents, settings, stage.model.architecture, stage.name, world=parsed.ranks)
    first = {
        "chat_format": builder.renderer.format.name,
        "longest_document": int(tokenized.documents.lengths.max()),
    }
    return {**first, **tokenized.describe(), **stream.describe()}


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2%}"
    return f"{value:,}" if isinstance(value, int) else str("not defined here" if value is None else value)
