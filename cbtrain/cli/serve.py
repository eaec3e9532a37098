"""``cbtrain serve``: serve a model over the OpenAI chat protocol."""

from __future__ import annotations

import argparse
import asyncio
import sys

from cbtrain.cli.model import add_format_arguments
from cbtrain.cli.parser import Commands, add_command, leading_console
from cbtrain.errors import UserError, nearest
from cbtrain.stopping import ignore_signals


def add(commands: Commands) -> None:
    text = "serve a model over the OpenAI chat protocol (this machine, no login)"
    serve = add_command(commands, "serve", _serve, text)
    serve.add_argument("--model", required=True, help="model folder or hub id")
    serve.add_argument("--adapter", help="adapter folder (PEFT format)")
    serve.add_argument(
        "--chat-format",
        default="auto",
        help="auto: as the adapter was trained, else the tokenizer's chat template; plain: labels, for a base model",
    )
    serve.add_argument("--name", default="cbtrain", help="model id that clients ask for")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8000, help="port; 0: a free one, which is printed")
    add_format_arguments(serve)
    serve.add_argument("--device", default="auto")
    serve.add_argument("--threads", type=int, help="CPU threads")
    serve.add_argument("--slots", type=int, default=16, help="conversations kept in the cache")
    serve.add_argument("--context", type=int, default=8192, help="longest prompt plus answer, in tokens")
    serve.add_argument("--with-parent", action="store_true", help="end when standard input ends")


def _serve(parsed: argparse.Namespace) -> None:
    import torch

    from cbtrain.console import loading_bar

    if parsed.with_parent:
        ignore_signals()
    from cbtrain.generation.config import EngineConfig
    from cbtrain.generation.local_model import LocalModel
    from cbtrain.generation.server import serve
    from cbtrain.model.config import ModelConfig
    from cbtrain.tokens.config import FORMATS

    if parsed.compute != "auto" and parsed.weights != "nf4":
        hint = "Leave it out: other weights compute in their own dtype."
        raise UserError(f"only nf4 weights take it, not {parsed.weights}", where="--compute", hint=hint)
    for name, low in (("threads", 1), ("slots", 1), ("context", 64), ("port", 0)):
        value = getattr(parsed, name)
        if value is not None and value < low:
            raise UserError(f"{value} is too small", where=f"--{name}", hint=f"At least {low}.")
    if parsed.threads:
        torch.set_num_threads(parsed.threads)
    config = EngineConfig(slots=parsed.slots, context_tokens=parsed.context)
    if parsed.chat_format not in FORMATS:
        raise UserError(
            f"unknown format {parsed.chat_format!r}", where="--chat-format", hint=nearest(parsed.chat_format, FORMATS)
        )
    loading = ModelConfig(
        weights=parsed.weights,
        compute=parsed.compute,
        double_quantization=not parsed.single_quantization,
        attention=parsed.attention,
        device=parsed.device,
    )
    with loading_bar(leading_console()) as progress:
        model = LocalModel(
            parsed.model,
            parsed.adapter,
            config,
            loading=loading,
            chat_format=parsed.chat_format,
            force=parsed.force,
            progress=progress,
        )
    for note in model.notes:
        print(note, file=sys.stderr, flush=True)
    asyncio.run(serve(model, parsed.name, parsed.host, parsed.port, until_stdin_closes=parsed.with_parent))
