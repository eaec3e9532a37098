"""``cbtrain serve``: serve a model over the OpenAI chat protocol."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cbtrain.cli.model import add_format_arguments, model_of
from cbtrain.cli.parser import ALIASES, Commands, add_command, add_study_arguments, leading_console, study_of
from cbtrain.errors import UserError
from cbtrain.stopping import ignore_signals

if TYPE_CHECKING:
    from cbtrain.generation.local_model import LocalModel

SHOWN = 80
"""Characters of a system prompt that a line shows."""


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
    text = (
        "for chats without a system message: trained (the prompt that is saved with the adapter), none, or a text file"
    )
    serve.add_argument("--system", default="trained", metavar="trained|none|FILE", help=text)
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
    system = _text_of(parsed.system)
    config = study_of(parsed)
    name = model_of(config, "serve")
    if config.threads:
        torch.set_num_threads(config.threads)
    with loading_bar(leading_console()) as progress:
        model = LocalModel(
            name,
            {"adapter": parsed.adapter} if parsed.adapter else {},
            config.evaluation.engine,
            loading=config.model,
            chat_format=config.tokens.format,
            force=parsed.force,
            progress=progress,
        )
    if parsed.system == "trained" and model.voice.trained_prompt:
        system = model.voice.trained_prompt.text
    deterministic = model.engine.be_deterministic() if config.evaluation.deterministic else ""
    for note in filter(None, (*model.notes, _system_note(model, parsed.system, system), deterministic)):
        print(note, file=sys.stderr, flush=True)
    serving = serve(model, parsed.name, parsed.host, parsed.port, system=system, until_stdin_closes=parsed.with_parent)
    asyncio.run(serving)


def _text_of(option: str) -> str | None:
    """Return the text of the file that ``--system`` names, None if it names none. Raises UserError if there is no text
    in it."""
    if option in ("trained", "none"):
        return None
    try:
        text = Path(option).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "Give trained, none, or a text file with a system prompt."
        raise UserError(f"{option!r} cannot be read ({reason})", where="--system", hint=hint) from None
    if not text:
        raise UserError(f"{option!r} is empty", where="--system", hint="Use --system none for no system prompt.")
    return text


def _system_note(model: LocalModel, option: str, system: str | None) -> str:
    """Return which system prompt is added to chats without one, or why none is; "" for a model that says nothing of
    one."""
    trained = model.voice.trained_prompt
    if system:
        source = "as trained; --system none leaves it out" if option == "trained" else option
        return f"system prompt of chats without one: {_shortened(system)} ({source})"
    if trained is None and option == "trained":
        return ""
    reason = "--system none" if trained is None or option == "none" else trained.note
    written = model.voice.renderer.own_system_text
    template = f"; the chat template writes its own: {_shortened(written)}" if written else ""
    return f"chats without a system prompt get none ({reason}){template}"


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return f"{text[:SHOWN]}…" if len(text) > SHOWN else text
