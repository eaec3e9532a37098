"""``cbtrain corpus tokens``: what an epoch of a corpus costs, how full its packs get, and what is trimmed."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cbtrain.commands.corpus_reading import config_of, console_on_stdout, table_of, whole
from cbtrain.errors import UserError

ROWS = {
    "chat_format": "chat format",
    "documents": "documents",
    "longest_document": "longest document, tokens",
    "tokens_per_epoch": "tokens an epoch",
    "supervised_per_epoch": "of them supervised",
    "trimmed_tokens": "trimmed after the last supervised token",
    "whole_recipe_tokens_per_epoch": "tokens an epoch, each session once",
    "paper_recipe_tokens_per_epoch": "tokens an epoch, the 2024 study's recipe",
    "packs": "packs",
    "fill": "slots filled",
    "unused_slots": "slots unused",
    "method": "packed by",
    "steps": "optimizer steps",
    "imbalance": "ranks' time spent waiting (estimated)",
}
"""What is reported, and what it is called."""


def tokens(parsed: argparse.Namespace) -> None:
    """Tokenize the whole cleaned corpus as training would, and say what that comes to."""
    facts = _facts(parsed)
    if parsed.json:
        print(json.dumps(facts, indent=2))
        return
    console = console_on_stdout()
    table = table_of(f"{parsed.path}, by {parsed.model}", "", numbers=1)
    for name, label in ROWS.items():
        table.add_row(label, _shown(facts[name]))
    console.print(table)


def _facts(parsed: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from cbtrain.model.architecture import read_architecture
    from cbtrain.model.weights import resolve_model
    from cbtrain.study import make_builder, system_prompt
    from cbtrain.tokens.chat import ChatRenderer
    from cbtrain.tokens.documents import units_of
    from cbtrain.tokens.formats import choose_format
    from cbtrain.tokens.stream import PackStream
    from cbtrain.tokens.tokenize import cache_root, tokenize
    from cbtrain.tokens.tokenizer import load_tokenizer
    from cbtrain.transcripts.cleaning import clean

    parsed.settings = [f"model.path={parsed.model}", *parsed.settings]  # not the defaults of a tiny model
    config = config_of(parsed)
    settings = getattr(config, parsed.speaker)
    per_step = settings.packs_per_step or parsed.ranks
    if per_step < parsed.ranks:
        fix = f"Set {parsed.speaker}.packs_per_step to {parsed.ranks} or more."
        raise UserError(f"{per_step} packs a step cannot feed {parsed.ranks} ranks", where="--ranks", fix=fix)
    folder = resolve_model(parsed.model)
    tokenizer = load_tokenizer(folder)
    renderer = ChatRenderer(tokenizer, choose_format(tokenizer, config.tokens.format, parsed.speaker))
    positions = read_architecture(folder).context if (folder / "config.json").exists() else 2**31
    builder = make_builder(renderer, parsed.speaker, settings, positions, config, measured=False)
    corpus, _ = clean(whole(parsed), config.corpus.cleaning)
    units = [
        unit
        for course in corpus.courses
        for unit in units_of(course, config.tokens, system_prompt(parsed.speaker, config, course.profile))
    ]
    if not units:
        raise UserError("no session in which both speak", where=parsed.path, fix="See `cbtrain corpus check`.")
    columns = (TextColumn("Tokenizing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(units))
        chosen = tokenize(
            units,
            builder,
            root=cache_root(config.tokens.cache),
            progress=lambda done, _: progress.update(task, completed=done),
        )
    stream = PackStream(
        chosen.documents, settings.pack_tokens, settings.seed, packs_per_step=per_step, world=parsed.ranks
    )
    longest = int(chosen.documents.lengths.max())
    return {"chat_format": renderer.format.name, "longest_document": longest, **chosen.facts(), **stream.describe()}


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2%}"
    return (
        f"{value:,}" if isinstance(value, int) else str(value if value is not None else "the format holds one answer")
    )
