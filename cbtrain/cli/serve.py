"""``cbtrain serve``: serve a model over the OpenAI chat protocol."""

from __future__ import annotations

import argparse
import asyncio
import sys

from cbtrain.cli.model import add_format_arguments, model_of
from cbtrain.cli.parser import ALIASES, Commands, add_command, add_study_arguments, leading_console, study_of
from cbtrain.errors import UserError
from cbtrain.stopping import ignore_signals


def add(commands: Commands) -> None:
    text = "serve a model over the OpenAI chat protocol (this machine, no login)"
    example = "model.path=DIR model.weights=nf4"
    more = f"E.g. `cbtrain serve {example} --adapter DIR`. {ALIASES}"
    serve = add_command(commands, "serve", _serve, text, more)
    add_study_arguments(serve, example)
    serve.add_alias("--model", "model.path", help="model folder or hub id")
    serve.add_argument("--adapter", help="adapter folder (PEFT format)")
    serve.add_alias(
        "--chat-format",
        "tokens.format",
        help="auto: as the adapter was trained, else the tokenizer's chat template; plain: labels, for a base model",
    )
    serve.add_argument("--name", default="cbtrain", help="model id that clients ask for")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8000, help="port; 0: a free one, which is printed")
    add_format_arguments(serve)
    serve.add_alias("--threads", "threads", type=int, help="CPU threads")
    serve.add_alias("--slots", "evaluation.engine.slots", type=int, help="conversations kept in the cache")
    text = "longest prompt plus answer, in tokens"
    serve.add_alias("--context", "evaluation.engine.context_tokens", type=int, help=text)
    serve.add_argument("--with-parent", action="store_true", help="end when standard input ends")


def _serve(parsed: argparse.Namespace) -> None:
    import torch

    from cbtrain.console import loading_bar

    if parsed.with_parent:
        ignore_signals()
    from cbtrain.generation.local_model import LocalModel
    from cbtrain.generation.server import serve

    if parsed.port < 0:
        raise UserError(f"{parsed.port} is too small", where="--port", hint="At least 0.")
    config = study_of(parsed)
    name = model_of(config, "serve")
    if config.threads:
        torch.set_num_threads(config.threads)
    with loading_bar(leading_console()) as progress:
        model = LocalModel(
            name,
            parsed.adapter,
            config.evaluation.engine,
            loading=config.model,
            chat_format=config.tokens.format,
            force=parsed.force,
            progress=progress,
        )
    for note in model.notes:
        print(note, file=sys.stderr, flush=True)
    asyncio.run(serve(model, parsed.name, parsed.host, parsed.port, until_stdin_closes=parsed.with_parent))
