"""``cbtrain chat``: a person talks to a model in the terminal."""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

from cbtrain.cli.adapters import OPTION, adapters_of
from cbtrain.cli.local_model import add_local_model_arguments, load_local_model
from cbtrain.cli.model import model_of
from cbtrain.cli.parser import ALIASES, Commands, add_command, add_study_arguments, study_of
from cbtrain.cli.system_option import add_system_option, system_text
from cbtrain.errors import UserError

THERAPIST = "evaluation.therapist"
"""Section of the settings of sampling."""

MAX_TOKENS = 400
"""The default of the section is made for simulations with small models and would cut long turns."""

SPARE_SLOTS = 2
"""Slots of the cache beside one for each adapter: the base's, and one for an answer that is given again."""

FIRST_SEEDS = 1_000_000
"""First seeds are below it: short enough to be typed."""


def add(commands: Commands) -> None:
    text = "talk to a model in the terminal (research software, not care)"
    more = f"E.g. `cbtrain chat --model DIR --adapter DIR`; /help lists the commands there. {ALIASES}"
    chat = add_command(commands, "chat", _chat, text, more)
    add_study_arguments(chat, "model.weights=nf4")
    text = "adapter folder (PEFT format), named after itself unless NAME is given; can be given several times"
    chat.add_argument(OPTION, action="append", default=[], metavar="DIR|NAME=DIR", help=text)
    add_system_option(chat, "system prompt")
    chat.add_alias("--temperature", f"{THERAPIST}.temperature", type=float, help="0: always the likeliest token")
    text = "keep the likeliest tokens that have this probability; 1: all"
    chat.add_alias("--top-p", f"{THERAPIST}.top_p", type=float, help=text)
    text = f"longest answer; {MAX_TOKENS} without --config"
    chat.add_alias("--max-tokens", f"{THERAPIST}.max_tokens", type=int, help=text)
    chat.add_argument("--seed", type=int, help="the same seed and words give the same answers; default: another one")
    add_local_model_arguments(chat, "conversation")


def _chat(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.serving.chat.conversation import BASE
    from cbtrain.serving.chat.loop import Chat
    from cbtrain.serving.chat.terminal import Terminal
    from cbtrain.serving.chat.therapist import Therapist

    adapters = adapters_of(parsed.adapter, _folder_name)
    if BASE in adapters:
        problem = f"{BASE!r} is the name of the model without an adapter"
        raise UserError(problem, where=OPTION, hint="Choose another one: NAME=DIR.")
    system = system_text(parsed.system) or parsed.system
    config = study_of(with_longer_answers(parsed))
    name, sampling = model_of(config, "chat"), config.evaluation.therapist
    engine = config.evaluation.engine
    if engine.slots is None and engine.memory_gb is None:
        engine = engine.model_copy(update={"slots": len(adapters) + SPARE_SLOTS})
        config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"engine": engine})})
    model, notes = load_local_model(parsed, config, name, adapters, Console(stderr=True))
    terminal = Terminal()
    for note in notes:
        terminal.note(note)
    facts = {"model": name, "sampling": sampling.model_dump_json()}
    seed = random.randrange(FIRST_SEEDS) if parsed.seed is None else parsed.seed
    with Therapist(model, sampling) as therapist:
        Chat(therapist, terminal, system=system, seed=seed, facts=facts).run()


def with_longer_answers(parsed: argparse.Namespace) -> argparse.Namespace:
    """Return ``parsed`` with answers up to :data:`MAX_TOKENS`, if neither option, setting nor config says how long."""
    if parsed.config is None and not any(setting.startswith(THERAPIST) for setting in parsed.settings):
        parsed.max_tokens = MAX_TOKENS if parsed.max_tokens is None else parsed.max_tokens
    return parsed


def _folder_name(folder: Path) -> str:
    return Path(os.path.abspath(folder)).name
